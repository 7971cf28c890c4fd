"""Tallies of hours and days that are over, kept decoded in this process: they never change any more.

Reading a month of 100 job types takes a tenth of a second of a processor the first time, and a hundredth after that.
Only the present hour or day, and what is not known yet, is read from Redis. The journal of a type that was cleared, or
that was forgotten and came back, begins at another time; what was kept of it is dropped then.

They have no histograms of durations and costs (`rqmem.store.history.history_reader.tallied`).

Promises: at most so many tallies and sums are kept. Threads may read at the same time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from redis import Redis

from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Tally
from rqmem.store.history.kept_types import OTHERS
from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from rqmem.values import dataclass

MOST = 5000
"""Of 100 job types the days of a month and most hours of the last day, in 8 MB."""
_MOST_SUMS = 400
_OPEN_SECONDS = 120  # a worker writes what ended in an hour soon after it, by its own clock

_Name = tuple[str, str, int]  # job type, "h" or "d", number since 1970
_Range = tuple[str, str, int, int]


@dataclass(frozen=True)
class Steps:
    """What happened to a job type, by the hour or the day: number of it since 1970 -> tally, and all of them together.

    Without those that have no run.
    """

    by_number: dict[int, Tally]
    total: Tally


class ClosedPeriods:
    """Tallies of one Redis. ``most``: how many are kept."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Name, Tally | None] = OrderedDict()
        self._sums: OrderedDict[_Range, Tally] = OrderedDict()
        self._born: dict[str, float] = {}

    def read(
        self, connection: Redis, job_types: Iterable[str], since: float, now: float, *, by_day: bool,
        until: float | None = None,
    ) -> dict[str, Steps]:  # fmt: skip
        """Job type -> its tallies from the hour or day of ``since`` to that of ``until``, which is ``now`` otherwise.

        Times in epoch seconds.
        """
        period, seconds = ("d", DAY_SECONDS) if by_day else ("h", HOUR_SECONDS)
        first, last = int(since // seconds), int((now if until is None else until) // seconds)
        closed = int((now - _OPEN_SECONDS) // seconds) - 1  # the last one that is over
        names = list(job_types)
        self._forget_reborn(connection, names)
        asked = [(name, period, number) for name in names for number in range(first, last + 1)]
        found = self._of(connection, asked, closed)
        return {name: self._steps(found, name, period, range(first, last + 1), closed) for name in names}

    def __len__(self) -> int:
        return len(self._kept)

    def _forget_reborn(self, connection: Redis, names: Sequence[str]) -> None:
        born = history_reader.begun(connection, names)
        with self._lock:
            gone = {name for name in names if name in self._born and self._born[name] != born.get(name)}
            self._born.update(born)
            if gone:
                for each in [each for each in self._kept if each[0] in gone]:
                    del self._kept[each]
                for of in [of for of in self._sums if of[0] in gone]:
                    del self._sums[of]

    def _of(self, connection: Redis, asked: Sequence[_Name], closed: int) -> dict[_Name, Tally]:
        with self._lock:
            known = {each: self._kept[each] for each in asked if each in self._kept}
            for each in known:
                self._kept.move_to_end(each)
        new = [each for each in asked if each not in known]
        read = history_reader.tallied(connection, new)
        with self._lock:
            for each in new:
                if each[2] <= closed and each[0] != OTHERS:  # which takes over the past of types that are forgotten
                    self._kept[each] = read.get(each)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        there = {each: tally for each, tally in known.items() if tally is not None}
        return {**there, **read}

    def _steps(self, found: dict[_Name, Tally], name: str, period: str, numbers: range, closed: int) -> Steps:
        tallies = {number: found[name, period, number] for number in numbers if (name, period, number) in found}
        of = (name, period, numbers[0], closed)
        with self._lock:
            before = self._sums.pop(of, None)
        if before is None:
            before = Tally.total([tally for number, tally in tallies.items() if number <= closed])
        with self._lock:
            if name != OTHERS:
                self._sums[of] = before
            while len(self._sums) > _MOST_SUMS:
                self._sums.popitem(last=False)
        now = [tally for number, tally in tallies.items() if number > closed]
        return Steps(tallies, Tally.total([before, *now]) if now else before)
