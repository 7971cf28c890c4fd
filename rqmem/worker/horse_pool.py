"""The horses of one worker: the warm one, one that was killed, their cgroups, and the processes that jobs leave.

The worker is the subreaper, so orphans of jobs become its children. It reaps them by pid, never with
``waitpid(-1)``, which would take the exit status of RQ's scheduler.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NoReturn

from rqmem import events
from rqmem.measure import linux, process_tree, procfs
from rqmem.units import MB
from rqmem.worker.execution import Event
from rqmem.worker.horse.channel import Channel
from rqmem.worker.horse.hook_runner import ENDING_SECONDS
from rqmem.worker.kernel import HorseGroup, KernelLayer
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.warm_horse import WarmHorse
from rqmem.worker.watcher import Identity, Watcher
from rqmem.worker.worker_setup import Setup


class HorsePool:
    """Forks, ends and reaps horses. In the worker's main thread, but for `leave_alone` and `forget_helper`.

    Args:
        helper_pids: returns the children of the worker that other code waits for.

    Attributes:
        config: the worker's settings; `calibrate` adds the growth rate of this machine.
        warm: the horse that takes the next job.
        page: shared with the current or last horse. A `WatchedFork` has a page of its own.
        forking_pid: the process that made the page and forks.
        group: the cgroup of the current horse, if it has one.
        kernel: makes these cgroups; None: there are none.
        idle_bytes: memory of a new horse that has run no job.
        known: descendants of the worker that do not belong to the running job. The heart's thread may add to it.
    """

    def __init__(self, setup: Setup, helper_pids: Callable[[], Iterable[int]] = tuple) -> None:
        self._setup = setup
        self._helper_pids = helper_pids
        self.config = setup.config
        self.page = SharedPage.new(setup.limit_bytes)
        self.forking_pid = 0
        self.warm: WarmHorse | None = None
        self.group: HorseGroup | None = None
        self.kernel: KernelLayer | None = None
        self.idle_bytes = 0
        self.known: set[int] = set()
        self._dying: tuple[WarmHorse, HorseGroup | None] | None = None
        self._others: dict[int, int | None] = {}  # pid and start time of children that other code waits for
        self._births, self._last_birth = process_tree.Births(), b""
        self._helpers: set[int] = set()  # those of them that the heart's thread has forked

    @property
    def idle_pid(self) -> int:
        """The pid of the warm horse, whether it runs a job or not; 0 if there is none."""
        return self.warm.pid if self.warm is not None else 0

    @property
    def held_bytes(self) -> int:
        """Bytes that the warm horse holds between two jobs; without a warm horse, those of a new one."""
        return self.idle_bytes + (self.warm.state.kept_bytes if self.warm is not None else 0)

    def outside_bytes(self) -> int:
        return self.group.outside_bytes() if self.group is not None else 0

    def calibrate(self, idle_bytes: int, fastest_growth: Callable[[], float]) -> None:
        """Called at the start. ``fastest_growth`` (bytes per second) is used if the settings name no growth rate."""
        self.idle_bytes = idle_bytes
        if self.config.growth_mb_per_second is None:
            self.config = replace(self.config, growth_mb_per_second=fastest_growth() / MB)

    def note_others(self) -> None:
        """Note the children that this process has before its first horse, so that they are not reaped."""
        self._others = {pid: procfs.read_start_time(pid) for pid in procfs.read_children(os.getpid())}

    def note_known(self) -> None:
        """Note the descendants that the worker has now: they do not belong to the next job."""
        self._last_birth = self._births.last()
        self.known = set(process_tree.descendants(os.getpid())) - {self.idle_pid}
        self.known |= self._helpers  # one may have been forked meanwhile

    def leave_alone(self, pid: int) -> None:
        """Do not count or kill this child of the heart's thread with a job, even if it was forked while one runs."""
        self._others[pid] = procfs.read_start_time(pid)
        self._helpers.add(pid)
        self.known.add(pid)

    def forget_helper(self, pid: int) -> None:
        self._helpers.discard(pid)

    def fork(self, serve: Callable[[Channel], NoReturn]) -> WarmHorse:
        self.new_page()
        self._new_group()
        self.warm = WarmHorse.fork(self.page, serve)
        return self.warm

    def prepare_fork(self) -> None:
        """Called before RQ's code forks a horse for one job."""
        self.new_page()
        self.page.fresh = True
        self.page.advance(Event.TAKEN)
        self._new_group()
        self.note_known()

    def new_page(self, ceiling_bytes: int | None = None) -> None:
        """Make the page of a process that this one is about to fork."""
        self.forking_pid = os.getpid()
        self.page = SharedPage.new(self._setup.limit_bytes if ceiling_bytes is None else ceiling_bytes)

    def end_warm(self, *, broken: bool = False) -> None:
        """Let the warm horse call its last hooks, end it and reap it."""
        warm, self.warm = self.warm, None
        if warm is not None:
            warm.unwatch()
            if warm.page.ends_with_hooks:
                self._watch_ending_hooks(warm)
            warm.end()
            self.retire_group(broken=broken)

    def _watch_ending_hooks(self, warm: WarmHorse) -> None:
        """Wait for the hooks that a horse calls before it ends. Its last job's ceiling and a time limit apply."""
        warm.channel.close()
        name, page = self._setup.name, warm.page
        known = set(process_tree.descendants(os.getpid())) - {warm.pid}
        identity = Identity("hooks of horse_ending", "", "", name)
        try:
            watcher = Watcher(warm.pid, page, identity, self.config, known)
        except ProcessLookupError:
            return
        try:
            with linux.urgent():
                ended = watcher.wait(time.monotonic() + ENDING_SECONDS + 1)
        finally:
            watcher.close()
        if not ended:
            process_tree.kill(os.getpid(), known, group=warm.pid)
        if page.in_user_code or watcher.breach is not None:
            error = watcher.breach.summary() if watcher.breach is not None else "the horse ended in it"
            error = error if ended else f"killed: it had not ended after {ENDING_SECONDS} s"
            about = {"job": page.job, "job_id": "", "queue": "", "worker": name}
            events.emit(events.HookFailed(hook=page.operation or "horse_ending hook", error=error, **about))

    def kill_warm(self) -> None:
        """Send SIGKILL to a horse that has reported and must not run another job. `bury` waits for its end."""
        self.bury()
        warm, self.warm = self.warm, None
        if warm is not None:
            warm.unwatch()  # otherwise the next horse inherits the watcher's open files
            process_tree.send([warm.pid], signal.SIGKILL)
            self._dying = (warm, self.group)
            self.group = None

    def bury(self) -> None:
        """Wait until the killed horse and its descendants have ended, reap them, and remove their cgroup."""
        if self._dying is None:
            return
        (warm, group), self._dying = self._dying, None
        process_tree.kill(os.getpid(), self.known | ({self.warm.pid} if self.warm is not None else set()))
        warm.end()
        self.reap()
        if group is not None and self.kernel is not None:
            self.kernel.retire(group, keep_limit=True)

    def reap(self) -> None:
        """Reap ended processes that jobs have left. It reaps no horse: `WarmHorse.end` does that."""
        for pid in self._helper_pids():
            self._others[pid] = procfs.read_start_time(pid)
        horses = [each.pid for each in (self.warm, self._dying[0] if self._dying else None) if each is not None]
        process_tree.reap_zombies(os.getpid(), self._others | {pid: procfs.read_start_time(pid) for pid in horses})

    def left_by_job(self) -> list[int]:
        if self._births.last() == self._last_birth:  # no process was forked since the job began
            return []
        self.reap()
        return [pid for pid in process_tree.descendants(os.getpid(), self.known) if pid != self.idle_pid]

    def kill_tree(self, horse_pid: int, *, wait: bool = True) -> None:
        process_tree.kill(os.getpid(), self.known, group=horse_pid, wait=wait)
        if self.group is not None:
            self.group.kill(wait=wait)

    def _new_group(self) -> None:
        if self.kernel is not None:
            self.group = self.kernel.new_group(self._setup.limit_bytes)

    def retire_group(self, *, broken: bool = False) -> None:
        group, self.group = self.group, None
        if group is not None and self.kernel is not None:
            self.kernel.retire(group, keep_limit=broken)
