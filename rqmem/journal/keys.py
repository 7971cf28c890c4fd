"""All Redis keys of rqmem, named here and nowhere else."""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

PREFIX = "rqmem" if RQ_KEY_PREFIX == "rq" else f"{RQ_KEY_PREFIX}:rqmem"

RUNNING = f"{PREFIX}:running"
"""Hash: job id -> `Owner` of its present execution, as JSON. The fencing token is in it."""


def alive(worker: str) -> str:
    """String with a short time to live: there while that worker's heart beats."""
    return f"{PREFIX}:alive:{worker}"


def run(job_id: str) -> str:
    """Hash: what is known of a memory-aware job over all its executions (`RunRecord`)."""
    return f"{PREFIX}:run:{job_id}"


def breaches(job_id: str) -> str:
    """List: the breaches of a job as JSON, newest first, capped."""
    return f"{PREFIX}:breaches:{job_id}"


def results(job_id: str) -> str:
    """List: what the processors of finished chunks returned, one ``stage:serialised list`` a chunk."""
    return f"{PREFIX}:results:{job_id}"
