"""Entries of queues that are no ids of jobs: whoever pushes to a list of RQ's by himself can write anything there."""

from __future__ import annotations

import logging

from rqmem.rq_names import validate_job_id

_LONGEST_SHOWN = 60
_log = logging.getLogger("rqmem.worker")


def is_job_id(entry: bytes) -> bool:
    """Whether RQ takes it for an id."""
    try:
        validate_job_id(entry.decode())
    except ValueError:  # also where it is no UTF-8
        return False
    return True


def tell_dropped(queue_key: str, entry: bytes) -> None:
    """Log that an entry of a queue is gone."""
    shown = ascii(entry[:_LONGEST_SHOWN])[1:]
    _log.warning("dropped %s from %s: it is no id of an RQ job, or what Redis has under it is no job", shown, queue_key)
