"""What a job needs while it runs, imported as one when the first job runs.

A process that only enqueues does not load it. A worker loads it before it forks horses (`rqmem.worker.imports`).
"""

from __future__ import annotations

from rqmem.job.child_enqueuer import opened as opened
from rqmem.job.children import begins_again as begins_again
from rqmem.job.children import child_jobs as child_jobs
from rqmem.job.chunks import chunks as chunks
from rqmem.job.chunks import process_in_chunks as process_in_chunks
from rqmem.job.gather import gather as gather
from rqmem.job.run import JobRun as JobRun
from rqmem.job.split import cut_in_two as cut_in_two
from rqmem.job.split import fitting_items as fitting_items
from rqmem.job.split import should_split as should_split
