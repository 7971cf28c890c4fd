"""The last minutes of each worker's memory, by the second, for displays that read again and again. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable

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
