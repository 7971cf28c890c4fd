"""What uses memory now, and what did while somebody looked: the live view and the report of ``rqmem monitor``.

Only reads: Redis through `rqmem.journal.history_reader` and by RQ's key names, the machine through psutil and
``/proc/pressure``. Reading order: `system`, `look` (one look at machine and Redis) -> `crossings`, `steps`, `workers`,
`record` (what a row of looks comes to) -> `statistics`, `job_types` (figures by job type) -> `report`, `report_text`,
`saving` (what stays) -> `lines`, `worker_lines`, `view`, `plain`, `screen` (what is shown) -> `stopping`, `loop` (which
has the clocks). `top` is one worker by line of code, for ``rqmem top``.
"""
