"""Hooking into rqmem: functions of yours that are called around jobs, or hear of what happens.

Put them in a module, and name it by ``--plugin``, ``RQMEM_PLUGINS`` or an entry point of the group ``rqmem.plugins``::

    from rqmem import events, hooks

    @hooks.after_job
    def forget_tenant(job, outcome):
        tenants.forget()

    @hooks.on(events.Breach)
    def count(breach):
        statistics.increment("breaches", tags=[breach.job])

``horse_started``, ``before_job``, ``after_job`` and ``horse_ending`` run in the work-horse, warm or forked, for every
job. Their time and memory count towards the job: its ceiling and its time limit hold in them. ``on`` runs in a process
of its own next to the worker, up to a second after the event, so it can slow no job.

A hook that raises, exits, hangs or breaches is reported (`rqmem.events.HookFailed`), and the other hooks run. Before
the job, a breach and a time limit that is used up fail the job, as in the job itself. After it, they change nothing:
its outcome is committed before ``after_job`` is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from rqmem.errors import ConfigError
from rqmem.events import CATALOGUE, Event
from rqmem.text import did_you_mean

Hook = TypeVar("Hook", bound=Callable[..., Any])

_OURS = "rqmem.integrations."
_in_horse: dict[str, list[Callable[..., Any]]] = {}
_listeners: list[tuple[type[Event], Callable[..., Any]]] = []


def horse_started(hook: Hook) -> Hook:
    """Call ``hook()`` in each new work-horse, before its first job; that job is charged for it."""
    return _add("horse_started", hook)


def before_job(hook: Hook) -> Hook:
    """Call ``hook(job)`` before each job, with the `rq.job.Job`."""
    return _add("before_job", hook, "job")


def after_job(hook: Hook) -> Hook:
    """Call ``hook(job, outcome)`` after each job; ``outcome`` is ``"ok"`` or the name of the error, as a text.

    It has what is left of the job's time limit, at least 5 and at most 60 seconds. It is not called where the horse
    was killed, since its process is gone: `on` hears of that.
    """
    return _add("after_job", hook, "job", "outcome")


def after_jobs(hook: Hook) -> Hook:
    """Call ``hook()`` after each job, when all of `after_job` have been called; after short jobs once for several.

    It is for sending what jobs have left to be sent. While a horse runs short jobs in a lease, it is called ten times a
    second and at the end of the lease. It has 5 seconds there, and after other jobs as long as `after_job`.
    """
    return _add("after_jobs", hook)


def horse_ending(hook: Hook) -> Hook:
    """Call ``hook()`` when a work-horse that has run a job ends, unless it is killed. It has 10 seconds."""
    return _add("horse_ending", hook)


def on(kind: type[Event]) -> Callable[[Hook], Hook]:
    """Call ``hook(event)`` with each event of this kind (`rqmem.events`; `Event`: of every kind) of the worker.

    Checkpoints that are not worth a log line are left out. Breaches come without their evidence.
    """
    if not (isinstance(kind, type) and issubclass(kind, Event)):
        near = did_you_mean(str(getattr(kind, "__name__", kind)), CATALOGUE)
        hint = near.replace("did you mean ", "did you mean rqmem.events.") or "give a class of rqmem.events"
        raise ConfigError(f"hooks.on({kind!r}) is about no kind of event: {hint}")

    def register(hook: Hook) -> Hook:
        _check(f"on({kind.__name__})", hook, "event")
        if (kind, hook) not in _listeners:
            _listeners.append((kind, hook))
        return hook

    return register


def registered(name: str) -> list[Callable[..., Any]]:
    """The hooks of that name in the order in which they run: integrations are outermost."""
    order = sorted(_in_horse.get(name, ()), key=lambda hook: not hook.__module__.startswith(_OURS))
    return order if name in ("horse_started", "before_job") else order[::-1]


def listeners() -> list[tuple[type[Event], Callable[..., Any]]]:
    return list(_listeners)


def name_of(hook: Callable[..., Any]) -> str:
    """For people; what is no function, as `functools.partial` makes it, has no name of its own."""
    return f"{hook.__module__}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"


def _add(name: str, hook: Hook, *arguments: str) -> Hook:
    _check(name, hook, *arguments)
    hooks = _in_horse.setdefault(name, [])
    if hook not in hooks:
        hooks.append(hook)
    return hook


def _check(name: str, hook: Any, *arguments: str) -> None:
    """Raise `ConfigError` for what cannot be called so."""
    shown = getattr(hook, "__qualname__", repr(hook))
    call = f"{shown}({', '.join(arguments)})"
    if not callable(hook) or inspect.iscoroutinefunction(hook):
        raise ConfigError(f"hooks.{name}: {shown} is no plain function: it is called as {call}")
    try:
        inspect.signature(hook).bind(*arguments)
    except TypeError as error:
        raise ConfigError(f"hooks.{name}: {shown} cannot be called as {call}: {error}") from None
    except ValueError:  # a function in C says nothing of its arguments
        pass
