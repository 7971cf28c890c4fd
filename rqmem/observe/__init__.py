"""Reading: RQ's and rqmem's data as values. All surfaces show these values, so two of them cannot disagree.

One snapshot of everything: `model`, `snapshot`, `problems`. One job: `find`, `job_read`, `job`, `next_step`. A period:
`period_read`, `period`, `advice`, `statistics`. Imports no job, so a job type whose code is gone is shown too.
"""
