"""The last minutes of each worker's memory, and what a look at Redis becomes for a browser. Pure.

The compact form of a history has a value for each second: the usage in whole MB (null: no job ran), and the ceilings as
changes ``[second, MB]``. So 15 minutes of a worker take 3 KB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from rqmem.observe.as_json import of_snapshot
from rqmem.observe.model import Snapshot, Worker
from rqmem.observe.problems import problems
from rqmem.store.history.samples import Sample

_SENT_SECONDS = 15  # with each look, so that a viewer who missed some has no gap

Point = tuple[float, float]
"""Usage and ceiling in MB; a ceiling of 0: no job ran."""


class Histories:
    """Worker -> second (epoch) -> its memory then. Not thread-safe."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._points: dict[str, dict[int, Point]] = {}

    def last(self, worker: str) -> int | None:
        return max(self._points.get(worker, ()), default=None)

    def add(self, worker: Worker, samples: Iterable[Sample] = ()) -> None:
        """What its samples and its report say; of one second, the highest usage."""
        points = self._points.setdefault(worker.name, {})
        for each in samples:
            _keep(points, each.at, (each.usage_mb, each.limit_mb))
        if worker.live is not None:
            _keep(
                points, int(worker.live.at), (worker.usage_mb or 0.0, worker.ceiling_mb or 0.0 if worker.job else 0.0)
            )
        newest = max(points, default=0)
        for at in [at for at in points if at <= newest - self._seconds]:
            del points[at]

    def forget_all_but(self, names: Collection[str]) -> None:
        for name in self._points.keys() - set(names):
            del self._points[name]

    def newest(self, now: float) -> dict[str, list[tuple[int, float, float]]]:
        """Worker -> its points of the last seconds: second, usage, ceiling."""
        return {
            name: [(at, round(points[at][0], 1), points[at][1]) for at in sorted(points) if at > now - _SENT_SECONDS]
            for name, points in self._points.items()
        }

    def compact(self, now: float) -> dict[str, Any]:
        """All of it: ``begin`` (epoch seconds), and of each worker ``usage_mb`` and ``ceiling_mb``."""
        begin = int(now) - self._seconds + 1
        return {
            "begin": begin,
            "workers": {name: _columns(points, begin, int(now)) for name, points in self._points.items()},
        }


def of_look(snapshot: Snapshot, histories: Histories) -> dict[str, Any]:
    """As ``rqmem status --json``, and the newest ``samples`` of each worker."""
    return {**of_snapshot(snapshot, problems(snapshot)), "samples": histories.newest(snapshot.at)}


def _keep(points: dict[int, Point], at: int, point: Point) -> None:
    points[at] = max(points.get(at, point), point)


def _columns(points: dict[int, Point], begin: int, end: int) -> dict[str, list[Any]]:
    usage: list[int | None] = []
    ceilings: list[tuple[int, float]] = []
    for at in range(begin, end + 1):
        used, ceiling = points.get(at, (0.0, 0.0))
        usage.append(round(used) if ceiling else None)
        if ceiling != (ceilings[-1][1] if ceilings else 0.0):
            ceilings.append((at - begin, ceiling))
    return {"usage_mb": usage, "ceiling_mb": ceilings}
