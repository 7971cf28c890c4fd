"""What rqmem keeps in Redis. Nothing else in rqmem writes there.

`keys` names each key. `executions` writes what running jobs need, `execution_reader` reads it, `execution_records`
has its values, `ledger` is the ledger of children. `history` and `alerts` may be forgotten. The scripts are in `lua`.
"""
