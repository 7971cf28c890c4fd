"""Sentry: breaches are events of their own kind, nothing is lost when a horse ends, and no job sees another's scope.

The errors of jobs reach Sentry by its own integration for RQ (`sentry_sdk.integrations.rq`), which is on by default and
decides what of a job's arguments is sent. This adds the fingerprint of a breach and its figures. A breach after which
the job goes on is no error and no event. For a horse that was killed, the process that settles its end sends the event.
"""

from __future__ import annotations

import weakref
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger

from rqmem import hooks
from rqmem.errors import MemoryLimitExceeded

_FLUSH_SECONDS = 2.0
_FIGURES = ("used_mb", "limit_mb", "peak_mb", "layer", "processes", "operation", "where", "next")

ignore_logger("rqmem.jobs")  # in the worker too: what it tells at ERROR is a job's exception as well, or was handled


@hooks.horse_started
def prepare() -> None:
    sentry_sdk.get_global_scope().add_event_processor(_describe_breach)


@hooks.before_job
def separate_scope(job: Any) -> None:
    # In the job's own context of variables, which ends with it: so does the scope.
    sentry_sdk.Scope.set_isolation_scope(sentry_sdk.get_isolation_scope().fork())
    _name_job(job)  # where Sentry is set up by the job's own modules, its integration is too late for this one


@hooks.after_job
def flush(job: Any, outcome: str) -> None:
    sentry_sdk.flush(timeout=_FLUSH_SECONDS)


@hooks.horse_ending
def flush_the_rest() -> None:
    sentry_sdk.flush(timeout=_FLUSH_SECONDS)


def _name_job(job: Any) -> None:
    """Events say of the job what Sentry's integration says of jobs, also in the process that settles a killed one."""
    try:
        from sentry_sdk.integrations.rq import _make_event_processor
    except ImportError:
        return
    weak_job: Any = weakref.ref(job)
    sentry_sdk.get_isolation_scope().add_event_processor(_make_event_processor(weak_job))


def _describe_breach(event: Any, hint: dict[str, Any]) -> Any:
    error = (hint.get("exc_info") or (None, None, None))[1]
    if isinstance(error, MemoryLimitExceeded):
        breach = error.breach
        event["fingerprint"] = ["rqmem", "MemoryLimitExceeded", breach.job]
        event.setdefault("tags", {})["rqmem.layer"] = breach.layer
        event.setdefault("contexts", {})["rqmem breach"] = {
            **{name: getattr(breach, name) for name in _FIGURES},
            "grew": [f"{grown:.0f} MB {line}" for grown, line in breach.grew],
            "kinds": [f"{name} +{count}" for name, count, _ in breach.kinds],
        }
    return event
