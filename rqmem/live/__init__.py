"""What uses memory now, and what did during a session: ``rqmem monitor`` and ``rqmem top``.

Only reads. Reading order: `system` (the machine) -> `crossings`, `steps`, `workers`,
`record` (a row of readings) -> `job_types` (figures by job type) -> `recording`, `recording_text`, `saving` (the report
of a session) -> `worker_lines`, `view`, `plain`, `screen` (the display) -> `stopping`, `loop` (which has the
clocks). `top` shows one worker by line of code.
"""
