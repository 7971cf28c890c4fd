"""The data of rqmem in Redis. Nothing else in rqmem writes there.

`keys` has the table of all keys, `codec` turns records into text and back. `executions` writes what running jobs need,
`execution_reader` reads it, `execution_records` has its records; `ledger` keeps the children of a job. `history` and
`alerts` may be forgotten. The scripts are in `lua`.
"""
