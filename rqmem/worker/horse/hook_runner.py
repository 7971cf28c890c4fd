"""Running hooks (`rqmem.hooks`) in a work-horse, and loading the modules that have them.

Promises: a hook that fails is reported and the next one runs. A breach or the end of the time limit leaves `before`,
since the job has no outcome yet; it never leaves `after` and `ending`. Whoever calls sees to the ceiling and the time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from rqmem import events, hooks, integrations, named_code
from rqmem.errors import MemoryLimitExceeded
from rqmem.rq_names import BaseTimeoutException, Job
from rqmem.worker.horse.source_lines import described
from rqmem.worker.horse.user_code import hook_runs
from rqmem.worker.shared_memory import SharedPage

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "rqmem.plugins"
ENDING_SECONDS = 10  # for all hooks of a horse that ends
_LIMITS = (MemoryLimitExceeded, BaseTimeoutException)

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]


def load(plugins: Iterable[str]) -> None:
    """Import the plugins named, and those of installed packages. Raises `ConfigError`."""
    for name in plugins:
        named_code.module(name, f"--plugin {name}")
    for entry in installed():
        package = entry.dist.name if entry.dist is not None else "?"
        named_code.module(entry.value.partition(":")[0], f"plugin {entry.name} of the installed package {package}")


@cache
def installed() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


class Hooking:
    """The hooks of one process that runs jobs.

    Args:
        only_integrations: hooks of users are left out: it is a process that settles a job's end, and no horse.
    """

    def __init__(self, worker: str, *, integrate: bool, only_integrations: bool = False) -> None:
        self._worker = worker
        self._integrate = integrate
        self._only_integrations = only_integrations
        self._started: list[Callable[..., Any]] = []
        self._begun: list[Callable[..., Any]] = []
        self._named = 0  # integrations that the page names
        self._about: dict[str, str] = {"job": "", "job_id": "", "queue": "", "worker": worker}

    def wanted(self, page: SharedPage) -> bool:
        """Whether there is anything to call after a job."""
        self._look_for_integrations(page)
        return any(self._hooks(name) for name in ("horse_started", "after_job", "after_jobs", "horse_ending"))

    def each_job(self, page: SharedPage) -> bool:
        """Whether there is anything to call around a job."""
        self._look_for_integrations(page)
        return any(self._hooks(name) for name in ("before_job", "after_job"))

    @property
    def after_several(self) -> bool:
        """Whether there is anything to call after several jobs."""
        return bool(self._hooks("after_jobs"))

    @property
    def awaits_outcome(self) -> bool:
        """Whether hooks of users follow a job, which may look at its outcome. Integrations do not."""
        return any(not integrations.owns(hook) for hook in self._hooks("after_job"))

    @property
    def ends(self) -> bool:
        """Whether there is anything to call when the process ends."""
        return bool(self._started) and bool(self._hooks("horse_ending"))

    def new_job(self, page: SharedPage, job: Job, queue: str) -> None:
        """From here on it is about this job."""
        self._begun = []
        self._named = 0
        self._about = {"job": page.job, "job_id": job.id, "queue": queue, "worker": self._worker}

    def before(self, page: SharedPage, job: Job) -> None:
        """Those that come before the job and have not been called for it yet: its import may have brought new ones.

        Raises `MemoryLimitExceeded` and the job's time-out.
        """
        self._look_for_integrations(page)
        operation = page.operation
        for hook in self._not_yet(self._started, "horse_started"):
            self._call(page, "horse_started", hook)
        for hook in self._not_yet(self._begun, "before_job"):
            self._call(page, "before_job", hook, job)
        page.operation = operation

    def after(self, page: SharedPage, job: Job, outcome: str) -> None:
        """All that come after the job, whatever happens in them; under a lease without those after several."""
        calls: list[Call] = [("horse_started", hook, ()) for hook in self._not_yet(self._started, "horse_started")]
        calls += [("after_job", hook, (job, outcome)) for hook in self._hooks("after_job")]
        self._call_all(page, calls + ([] if page.leased else self._calls("after_jobs")))

    def after_jobs(self, page: SharedPage) -> None:
        self._call_all(page, self._calls("after_jobs"))

    def ending(self, page: SharedPage) -> None:
        """All that come before the end of a process that has run a job."""
        if self._started:
            self._call_all(page, self._calls("horse_ending"))

    def _calls(self, name: str) -> list[Call]:
        return [(name, hook, ()) for hook in self._hooks(name)]

    def _hooks(self, name: str) -> list[Callable[..., Any]]:
        ours = hooks.registered(name)
        return [hook for hook in ours if integrations.owns(hook)] if self._only_integrations else ours

    def _look_for_integrations(self, page: SharedPage) -> None:
        if self._integrate and len(loaded := integrations.load_imported()) != self._named:
            self._named = len(loaded)
            page.integrations = " ".join(loaded)

    def _not_yet(self, called: list[Callable[..., Any]], name: str) -> Iterator[Callable[..., Any]]:
        for hook in self._hooks(name):
            if hook not in called:
                called.append(hook)
                yield hook

    def _call_all(self, page: SharedPage, calls: list[Call]) -> None:
        pid = os.getpid()
        while calls:
            name = ""
            try:
                while calls:
                    name, hook, arguments = calls.pop(0)
                    self._call(page, name, hook, *arguments)
            except _LIMITS as error:
                page.hook_breached |= isinstance(error, MemoryLimitExceeded)
                with contextlib.suppress(*_LIMITS):
                    self._report(page.operation or name, error)
            if os.getpid() != pid:  # a child that a hook forked and let return
                os._exit(0)
        page.operation = ""

    def _call(self, page: SharedPage, name: str, hook: Callable[..., Any], *arguments: Any) -> None:
        shown = page.operation = f"{name} hook {hooks.name_of(hook)}"
        try:
            with hook_runs():
                hook(*arguments)
        except _LIMITS:
            raise
        except BaseException as error:  # noqa: BLE001  also SystemExit: it is the hook that wants to leave
            self._report(shown, error)

    def _report(self, hook: str, error: BaseException) -> None:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")[:500]
        events.emit(events.HookFailed(hook=hook, error=line, where=_where(error), **self._about))


def _where(error: BaseException) -> str:
    """The line of code that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return described(f"{trace.tb_lineno}:{code.co_name}:{code.co_filename}")
