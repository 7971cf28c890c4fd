"""The only reader of RQ's and rqmem's data. Displays show its values, so that two of them cannot disagree.

- Everything at one moment: `snapshot` reads a `model.Snapshot`; `problems` says what is wrong in it;
  `worker_histories` keeps the minutes before, for displays that read again and again.
- One job: `find` (its id), `job_read`, `job`, `next_step`.
- A period: `period_read`, `period`, `advice`, `statistics`, `metric_words`.
- All of it as JSON: `vocabulary` (the rules), `as_json` (what each command prints).

`rqmem.api` is the public side. This package imports no job's code, so it shows a job type whose code is gone too.
"""
