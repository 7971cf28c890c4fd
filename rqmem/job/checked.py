"""Checks of values that job classes and calls give."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rqmem.errors import ConfigError
from rqmem.units import MB, show_mb

if TYPE_CHECKING:
    from rqmem.policy.escalation import Step


def checked_limit(limit_mb: Any, whose: str, unit: str = "MB") -> float | None:
    """A declared ceiling as MB, or another amount; None stays None. Raises `ConfigError`."""
    if limit_mb is None:
        return None
    if isinstance(limit_mb, bool) or not isinstance(limit_mb, int | float) or not 0 < limit_mb < 2**63 / MB:
        raise ConfigError(f"{whose} is {limit_mb!r}: give a number of {unit} greater than 0, for example 256")
    return float(limit_mb)


def checked_chunk_size(size: Any, whose: str) -> int | None:
    """A chunk size of at least 1; None stays None. Raises `ConfigError`."""
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f"{whose} is {size!r}: give a whole number of items of at least 1")
    return size


def check_enqueue_options(job_class: Any) -> None:
    """Raise `ConfigError` for a class whose options of RQ have a type or value that RQ cannot use."""
    whose = job_class.__qualname__
    queue, timeout, ttl, retry = job_class.queue, job_class.job_timeout, job_class.result_ttl, job_class.retry
    if not (isinstance(queue, str) and queue.strip()) and not hasattr(queue, "enqueue_call"):
        raise ConfigError(f"{whose}.queue is {queue!r}: give the name of a queue, for example 'campaigns'")
    if timeout is not None and not _is_timeout(timeout):
        raise ConfigError(
            f"{whose}.job_timeout is {timeout!r}: give seconds, a text as in '90s' or '2h', or -1: no limit"
        )
    if ttl is not None and not (_is_whole(ttl) and ttl >= -1):
        raise ConfigError(f"{whose}.result_ttl is {ttl!r}: give whole seconds, or -1: for ever")
    if retry is not None:
        from rqmem.rq_names import Retry

        if not isinstance(retry, Retry):
            raise ConfigError(f"{whose}.retry is {retry!r}: give rq.Retry, for example Retry(max=3, interval=60)")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_timeout(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"0*[1-9][0-9]*[dhms]?|-1", value, re.IGNORECASE) is not None
    return _is_whole(value) and (value > 0 or value == -1)


def check_spelling(job_class: type, settings: Collection[str]) -> None:
    """Raise `ConfigError` for an attribute that is nearly called like one of these: nobody would read it.

    A plural is left alone, and so are methods and what begins with an underscore.
    """
    for name, value in vars(job_class).items():
        is_method = callable(value) or hasattr(value, "__get__")
        if is_method or name.startswith("_") or name.removesuffix("s") in settings:
            continue
        if any(name in vars(base) for base in job_class.__mro__[1:]):
            continue
        import difflib

        if near := difflib.get_close_matches(name, list(settings), n=1, cutoff=_NEAR):
            raise ConfigError(
                f"{job_class.__qualname__}.{name} is nothing that rqmem reads: did you mean {near[0]}? "
                "(Begin the name with an underscore if it is your own)"
            )


def checked_steps(escalate_to: Any, whose: str, on_breach: str, declared_mb: float | None) -> tuple[Step, ...]:
    """``escalate_to`` as steps. ``declared_mb``: the ceiling before the first of them. Raises `ConfigError`."""
    if isinstance(escalate_to, str) or not isinstance(escalate_to, Sequence):
        raise ConfigError(f"{whose} is {escalate_to!r}: {_GIVE_STEPS}")
    steps = tuple(_checked_step(each, whose) for each in escalate_to)
    for before, step in pairwise(steps):
        if step.ceiling_mb <= before.ceiling_mb:
            raise ConfigError(
                f"{whose} has {show_mb(step.ceiling_mb)} MB after {show_mb(before.ceiling_mb)} MB: "
                f"each ceiling must be higher than the one before it"
            )
    if on_breach == "escalate" and not steps:
        raise ConfigError(f"{whose} is empty, and on_breach is 'escalate': {_GIVE_STEPS}")
    if on_breach == "escalate" and declared_mb is not None and steps[0].ceiling_mb <= declared_mb:
        raise ConfigError(
            f"{whose} begins with {show_mb(steps[0].ceiling_mb)} MB, and memory_limit_mb is {show_mb(declared_mb)}: "
            f"the first ceiling must be higher than that"
        )
    return steps


_NEAR = 0.85
_GIVE_STEPS = "give the next ceilings in MB, lowest first, for example (512, 1024); a pair (2048, 'big') names a queue"


def _checked_step(step: Any, whose: str) -> Step:
    from rqmem.policy.escalation import Step  # enqueueing needs none

    if not isinstance(step, tuple | list):
        step = (step,)
    if len(step) not in (1, 2) or step[0] is None:
        raise ConfigError(f"{whose} has {step!r}: {_GIVE_STEPS}")
    ceiling_mb = checked_limit(step[0], f"a ceiling of {whose}")
    assert ceiling_mb is not None
    queue = step[1] if len(step) == 2 else None
    if len(step) == 2 and (not isinstance(queue, str) or not queue.strip()):
        raise ConfigError(f"{whose} names the queue {queue!r} for {show_mb(ceiling_mb)} MB: give its name as a text")
    return Step(ceiling_mb, queue or "")
