"""The kernel's layer of the ceiling: a cgroup for each horse, with the limit at ceiling + reserve, and its page cache.

The watcher usually acts first. The kernel stops what is too fast for the watcher or invisible to it: a burst of huge
pages, files in tmpfs, full sockets and pipes, a worker that is stopped or dead. If no cgroup can be made, only this
layer is missing. Page cache is charged to a cgroup too, so the limit is raised by it (`rqmem.policy.page_cache`). A
job that uses this room for other memory is found by reading the charge.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import replace

from rqmem.errors import ConfigError
from rqmem.measure import cgroup, cgroup_places, procfs
from rqmem.measure.cgroup import Group
from rqmem.measure.cgroup_places import TakenPlace
from rqmem.measure.charge import slack_bytes
from rqmem.policy.ceiling import watch_interval
from rqmem.policy.page_cache import MUCH_CACHE_BYTES, Charge, judge

_NEAR_FRACTION = 0.5  # of the limit: from here on, read what the charge consists of
_MIN_LOOK_SECONDS = 0.002  # a look takes 60 µs
Stopped = Callable[[], contextlib.AbstractContextManager[None]]
_log = logging.getLogger("rqmem.worker")


class HorseGroup(Group):
    """The cgroup of one horse. Worker and horse each have a copy. Made by `make`; call `begin` before use.

    Attributes:
        alarm_fd: to wait on (`rqmem.measure.cgroup.Group.alarm`).
        suspected: the kernel may have killed a process in it; `killed` finds out.
        breach: at the last `look` the job held more than its ceiling and the reserve.
    """

    def begin(self, limit_bytes: int, room_bytes: int) -> None:
        """``limit_bytes``: what it was made with. ``room_bytes``: what a job may be charged beyond its ceiling."""
        self.alarm_fd = self.alarm()
        self.suspected = False
        self.breach = False
        self._room = room_bytes
        self._base = self._limit = limit_bytes
        self._slack = slack_bytes()
        self._look_at = 0.0
        self._reader = self.charge()
        self._charge = Charge(0, 0, 0, 0, 0)
        self._kills = 0

    def enter(self) -> None:
        """Move the calling process into the cgroup. A failure is logged only."""
        try:
            super().enter()
        except OSError as error:
            _log.warning("this horse has no cgroup: %s: %s", self.path, error.strerror)

    def hold(self, ceiling_bytes: int) -> None:
        """Set the limit for a job with this ceiling. If more is in use already, the limit does not change."""
        base_bytes = ceiling_bytes + self._room
        with contextlib.suppress(OSError):
            self.set_limit(judge(self._reader.read(), base_bytes, base_bytes, self._slack).limit_bytes)

    def look(self, ceiling_bytes: int, growth_rate: float, now: float, stopped: Stopped) -> float:
        """Give page cache its room, and find out who else uses it (`breach`). To be called at each reading.

        Returns the seconds until it wants to look again. The ceiling is given anew each time: the horse may have set
        another (`hold` in its copy of this). While in doubt, the job is stopped by ``stopped``.
        """
        base_bytes = ceiling_bytes + self._room
        if base_bytes == self._base and now < self._look_at:
            return self._look_at - now
        headroom_bytes: float = self._base
        with contextlib.suppress(OSError):  # somebody has removed the cgroup
            if base_bytes != self._base:
                self._base, self._limit = base_bytes, self.limit_bytes()
            headroom_bytes = self._base - self._reader.total()
            if headroom_bytes < _NEAR_FRACTION * self._base or self._limit != self._base:
                headroom_bytes = self._judge(stopped)
        pause = max(_MIN_LOOK_SECONDS, watch_interval(headroom_bytes, growth_rate))
        self._look_at = now + pause
        return pause

    def _judge(self, stopped: Stopped) -> float:
        """Read what the charge consists of and act on it; returns how many bytes the job may still grow."""
        self._charge = charge = self._reader.read()
        judgement = judge(charge, self._base, self._limit, self._slack)
        self.breach = judgement.breach
        if judgement.doubt:
            with stopped():
                droppable = self._set_limit(judgement.limit_bytes)
            self.breach = not droppable and charge.file_bytes < MUCH_CACHE_BYTES
        elif not judgement.breach and judgement.limit_bytes != self._limit:
            self._set_limit(judgement.limit_bytes)
        return self._base - charge.held_bytes

    def _set_limit(self, limit_bytes: int) -> bool:
        """Returns False if the kernel cannot drop enough page cache for this limit."""
        done = self.set_limit(limit_bytes)
        if done:
            self._limit = limit_bytes
        return done

    def outside_bytes(self) -> int:
        """Bytes charged that no process holds: files in tmpfs, kernel memory. Call it between two jobs."""
        with contextlib.suppress(OSError):
            if self._reader.total() >= MUCH_CACHE_BYTES:
                charge = self._reader.read()
                return charge.shmem_bytes + charge.kernel_bytes
        return 0

    def killed(self) -> bool:
        """Whether the kernel has killed in it, for memory, since this was last found so. Costs little if not."""
        if self._alarm_went_off():
            self.suspected = True  # v1 tells before it kills and counts
        if not self.suspected:
            return False
        kills = self.kernel_kills()
        if kills == self._kills:
            return False
        self._kills, self.suspected = kills, False
        return True

    def has_killed(self) -> bool | None:
        """Whether the kernel has killed in it, for memory, since `killed` last said so; None: it does not tell.

        v1 gives no word before a kill for the machine's want of memory, so `killed` does not see that one.
        """
        return self.kernel_kills() > self._kills if self.counts_kernel_kills() else None

    def close(self) -> None:
        """Close its open files. It may be called again."""
        self._reader.close()
        if self.alarm_fd is not None:
            os.close(self.alarm_fd)
            self.alarm_fd = None

    def _alarm_went_off(self) -> bool:
        if self.alarm_fd is None:
            return True
        if self.version == "v2":
            os.pread(self.alarm_fd, 4096, 0)
            return True
        try:
            os.read(self.alarm_fd, 8)
        except BlockingIOError:
            return False
        return True

    def charged(self) -> Charge:
        """What was the job's own when the kernel killed in it, or when `look` found a breach.

        After a kill memory is on its way out. But all that could be dropped had been: the charge was the limit.
        """
        charge = self._charge
        if not self.breach:
            peak_bytes = min(self.peak_bytes(), self._limit)
            charge = replace(charge, total_bytes=peak_bytes, file_bytes=0, shmem_bytes=self.parts().shmem_bytes)
        return charge

    def remove(self) -> bool:
        self.close()
        return super().remove()


class KernelLayer:
    """The groups of one worker's horses.

    Args:
        taken: where they are made; it is left at `close`.
        idle_bytes: what an idle horse uses: pages shared with the worker, whom they are charged to.
    """

    def __init__(self, taken: TakenPlace, reserve_bytes: int, idle_bytes: int) -> None:
        self.place = taken.place
        self.words = taken.words
        self._taken = taken
        self._room = reserve_bytes - min(idle_bytes, reserve_bytes // 2)
        self._numbers = itertools.count(1)
        self._left: list[HorseGroup] = []
        cgroup.remove_stale(taken.place)

    def new_group(self, ceiling_bytes: int) -> HorseGroup | None:
        """A group for a new horse; None, and a line in the log, where the kernel refuses."""
        name = f"rqmem-{os.getpid()}-{procfs.read_start_time(os.getpid())}-{next(self._numbers)}"
        limit_bytes = ceiling_bytes + self._room
        try:
            group = HorseGroup.make(self.place, name, limit_bytes)
            group.begin(limit_bytes, self._room)
        except OSError as error:
            _log.warning("no cgroup for this horse: %s: %s", self.place.path / name, error.strerror)
            return None
        return group

    def retire(self, group: HorseGroup, *, keep_limit: bool = False) -> None:
        """Its horse has ended. What a successful job left in it lives on, without a limit.

        ``keep_limit``: what still lives in it should not, and is another user's, so that we may not end it. It stays
        there; the next worker removes the group when it has ended.
        """
        self._left = [each for each in self._left if not each.remove()]
        if not group.remove() and not keep_limit:
            with contextlib.suppress(OSError):
                group.set_limit(None)
            self._left.append(group)

    def close(self) -> None:
        """Leave nothing behind: what lives on of successful jobs goes to where we are ourselves."""
        for group in self._left:
            with contextlib.suppress(OSError):
                group.move_out(self._taken.home)
        self._left = [each for each in self._left if not each.remove()]
        cgroup_places.leave(self._taken)


def kernel_layer(wanted: str, reserve_bytes: int, idle_bytes: int) -> KernelLayer | None:
    """The layer as ``--cgroup`` wants it; None where there is none. Raises `ConfigError` where it is required."""
    if wanted == "off":
        return None
    taken = cgroup_places.take()
    if isinstance(taken, TakenPlace):
        return KernelLayer(taken, reserve_bytes, idle_bytes)
    if wanted == "require":
        raise ConfigError(f"--cgroup require: {taken}; 'rqmem doctor' says how to get one, --cgroup auto does without")
    return None
