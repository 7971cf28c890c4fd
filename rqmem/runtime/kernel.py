"""The kernel's layer of the ceiling: a cgroup for each horse, with the limit at ceiling + reserve, and its page cache.

The watcher acts before it; the kernel is there for what outruns or escapes the watcher: a burst of huge pages,
data written to tmpfs without being mapped, a worker that is stopped or dead. Where no group can be made there
is no such layer, and nothing else changes. Page cache is charged to a group too, and a job that reads or writes files
faster than the kernel drops them would be slowed down threefold (measured): so the limit goes up with the cache.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os

from rqmem.errors import ConfigError
from rqmem.memory import cgroup, procfs
from rqmem.memory.cgroup import Group, Place
from rqmem.memory.cgroup_files import Held
from rqmem.units import MB

_NEAR_FRACTION = 0.5  # of the limit: it is time to look what the charge consists of
_MUCH_CACHE_BYTES = 16 * MB
_LOOK_SECONDS = 0.05  # a look takes 60 µs
_log = logging.getLogger("rqmem.worker")


class HorseGroup:
    """The group of one horse, as worker and horse hold it.

    Args:
        group: made, and entered by nobody yet.
        limit_bytes: what it was made with.
        room_bytes: what a job may be charged beyond its ceiling.

    Attributes:
        alarm: to wait on (`rqmem.memory.cgroup.Group.alarm`).
        suspected: the kernel may have killed in it; `killed` will tell.
    """

    def __init__(self, group: Group, limit_bytes: int, room_bytes: int) -> None:
        self.alarm = group.alarm()
        self._group = group
        self._room = room_bytes
        self._base = self._limit = limit_bytes
        self._looked_at = 0.0
        self._charge = group.open_charge()
        self._kills = 0
        self.suspected = False

    def enter(self) -> None:
        """The calling process and what it starts are in it from now on."""
        try:
            self._group.enter()
        except OSError as error:
            _log.warning("this horse has no cgroup: %s: %s", self._group.path, error.strerror)

    def hold(self, ceiling_bytes: int) -> None:
        """The limit for a job with this ceiling. What is in use already may be above it: then it stays as it was."""
        self._base = self._limit = ceiling_bytes + self._room
        with contextlib.suppress(OSError):
            self._limit += self._for_cache()
            self._group.set_limit(self._limit)

    def make_room(self, ceiling_bytes: int, now: float) -> None:
        """Raise the limit ahead of the page cache, when the charge has come near it. To be called at each reading.

        The ceiling is given anew each time: the horse may have set another (`hold` in its copy of this).
        """
        if ceiling_bytes + self._room != self._base:
            self._base = self._limit = ceiling_bytes + self._room
        if now - self._looked_at < _LOOK_SECONDS:
            return
        with contextlib.suppress(OSError):  # a group that somebody removed keeps nothing
            if self._read_charge() < _NEAR_FRACTION * self._limit:
                return
            self._looked_at = now
            wanted = self._base + self._for_cache()
            # What the kernel has killed is unmapped before it is uncharged, and looks like cache meanwhile.
            if wanted > self._limit and self._group.kernel_kills() == self._kills:
                self._limit = wanted
                self._group.set_limit(wanted)

    def _for_cache(self) -> int:
        """Twice the page cache there is, where that is much."""
        charge, held = self._read_charge(), self._group.held()
        cache = charge - held.anon_bytes - held.shmem_bytes
        return 2 * cache if cache >= _MUCH_CACHE_BYTES else 0

    def _read_charge(self) -> int:
        return int(os.pread(self._charge, 32, 0))

    def let_go(self) -> None:
        """No limit any more: what lives in it is nobody's job."""
        with contextlib.suppress(OSError):
            self._group.set_limit(None)

    def killed(self) -> bool:
        """Whether the kernel has killed in it, for memory, since this was last found so. Costs little if not."""
        if self._alarm_went_off():
            self.suspected = True  # v1 tells before it kills and counts
        if not self.suspected:
            return False
        kills = self._group.kernel_kills()
        if kills == self._kills:
            return False
        self._kills, self.suspected = kills, False
        return True

    def close(self) -> None:
        """Close what it holds open; again is harmless."""
        if self._charge != -1:
            os.close(self._charge)
            self._charge = -1
        if self.alarm is not None:
            os.close(self.alarm)
            self.alarm = None

    def _alarm_went_off(self) -> bool:
        if self.alarm is None:
            return True
        if self._group.version == "v2":
            os.pread(self.alarm, 4096, 0)
            return True
        try:
            os.read(self.alarm, 8)
        except BlockingIOError:
            return False
        return True

    def hit_limit(self) -> bool:
        """Whether that was for its own limit, and not an ancestor's or the machine's want of memory."""
        return self._group.hit_limit()

    def charged(self) -> tuple[int, Held]:
        """The most it was charged, as far as the limit allows, and what it is charged still."""
        return min(self._group.peak_bytes(), self._limit), self._group.held()

    def kill(self, *, wait: bool = True) -> None:
        """End everything in it; with ``wait``, until it has ended."""
        self._group.kill(wait=wait)

    def remove(self) -> bool:
        """False while something lives in it."""
        self.close()
        return self._group.remove()


class KernelLayer:
    """The groups of one worker's horses.

    Args:
        place: where they are made.
        reserve_bytes: the worker's reserve.
        idle_bytes: what an idle horse uses: pages shared with the worker, whom they are charged to.
    """

    def __init__(self, place: Place, reserve_bytes: int, idle_bytes: int) -> None:
        self.place = place
        self._room = reserve_bytes - min(idle_bytes, reserve_bytes // 2)
        self._numbers = itertools.count(1)
        self._left: list[HorseGroup] = []
        cgroup.remove_stale(place)

    def new_group(self, ceiling_bytes: int) -> HorseGroup | None:
        """A group for a new horse; None, and a line in the log, where the kernel refuses."""
        name = f"rqmem-{os.getpid()}-{procfs.read_start_time(os.getpid())}-{next(self._numbers)}"
        limit_bytes = ceiling_bytes + self._room
        try:
            return HorseGroup(Group.make(self.place, name, limit_bytes), limit_bytes, self._room)
        except OSError as error:
            _log.warning("no cgroup for this horse: %s: %s", self.place.path / name, error.strerror)
            return None

    def retire(self, group: HorseGroup) -> None:
        """Its horse has ended. What a successful job left in it lives on, without a limit."""
        self._left = [each for each in self._left if not each.remove()]
        if not group.remove():
            group.let_go()
            self._left.append(group)

    def close(self) -> None:
        """Remove what can be removed; the next worker removes the rest."""
        self._left = [each for each in self._left if not each.remove()]


def kernel_layer(wanted: str, reserve_bytes: int, idle_bytes: int) -> KernelLayer | None:
    """The layer as ``--cgroup`` wants it; None where there is none. Raises `ConfigError` where it is required."""
    if wanted == "off":
        return None
    place = cgroup.find()
    if isinstance(place, Place):
        return KernelLayer(place, reserve_bytes, idle_bytes)
    if wanted == "require":
        raise ConfigError(f"--cgroup require: {place}; 'rqmem doctor' says how to get one, --cgroup auto does without")
    return None
