"""What the journal says of job types: the report of ``rqmem report``, and the advice of ``rqmem recommend``.

Only reads Redis, and imports no job: a job type whose code is gone is told of all the same. Reading order: `report` and
`advice` (values) -> `read` (from the journal) -> `schema`, `text`, `advice_text` (as JSON and for people) -> `plots`,
`page` (as HTML). What a session's report has as well comes from `rqmem.monitor`.
"""
