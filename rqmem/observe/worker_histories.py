"""The last minutes of each worker's memory, by the second, for displays that read again and again. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from rqmem.observe.model import Worker
from rqmem.store.history.samples import Sample

Point = tuple[float, float]
"""Usage and ceiling in MB; a ceiling of 0: no job ran."""


class Histories:
    """Worker -> second (epoch) -> its memory then, for the last ``seconds``. Not thread-safe."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.points: dict[str, dict[int, Point]] = {}

    def last(self, worker: str) -> int | None:
        return max(self.points.get(worker, ()), default=None)

    def add(self, worker: Worker, samples: Iterable[Sample] = ()) -> None:
        """What its samples and its report say; of one second, the highest usage."""
        points, job = self.points.setdefault(worker.name, {}), worker.job
        said = [(each.at, (each.usage_mb, each.limit_mb)) for each in samples]
        if worker.live is not None:
            said.append((int(worker.live.at), (job.usage_mb, job.limit_mb) if job is not None else (0.0, 0.0)))
        for at, point in said:
            points[at] = max(points.get(at, point), point)
        newest = max(points, default=0)
        for at in [at for at in points if at <= newest - self.seconds]:
            del points[at]

    def forget_all_but(self, names: Collection[str]) -> None:
        for name in self.points.keys() - set(names):
            del self.points[name]

    def newest(self, now: float, seconds: int) -> dict[str, list[tuple[int, float, float]]]:
        """Worker -> its points of the last ``seconds``: second, usage, ceiling."""
        return {
            name: [(at, round(points[at][0], 1), points[at][1]) for at in sorted(points) if at > now - seconds]
            for name, points in self.points.items()
        }

    def compact(self, now: float) -> dict[str, Any]:
        """All of it as JSON: ``begin`` (epoch seconds), and of each worker a value for each second.

        The usage is in whole MB (null: no job ran), and ceilings are changes ``[second, MB]``. So 15 minutes of a
        worker take 3 KB.
        """
        begin, end = int(now) - self.seconds + 1, int(now)
        return {"begin": begin, "workers": {name: _columns(self.points[name], begin, end) for name in self.points}}


def _columns(points: dict[int, Point], begin: int, end: int) -> dict[str, list[Any]]:
    usage: list[int | None] = []
    ceilings: list[tuple[int, float]] = []
    for at in range(begin, end + 1):
        used, ceiling = points.get(at, (0.0, 0.0))
        usage.append(round(used) if ceiling else None)
        if ceiling != (ceilings[-1][1] if ceilings else 0.0):
            ceilings.append((at - begin, ceiling))
    return {"usage_mb": usage, "ceiling_mb": ceilings}
