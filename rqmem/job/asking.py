"""Asks Redis about the job that a horse runs, again and again until Redis answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rqmem.store.retrying import until_redis_answers
from rqmem.worker.horse.user_code import Horse

T = TypeVar("T")


def ask(horse: Horse, purpose: str, call: Callable[..., T], *args: Any) -> T:
    """``call(connection, job id, *args)``. Log lines about a Redis that is away name the ``purpose`` and the job.

    Under a lease the record of the job's run is written first, if Redis does not have it yet.
    """
    if horse.held is not None:
        horse.held.write()
    return until_redis_answers(lambda: call(horse.connection, horse.job_id, *args), f"{purpose} of job {horse.job_id}")
