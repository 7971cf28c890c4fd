"""What a look at Redis, and the last minutes of each worker's memory, become for a browser. Pure.

The compact form of a history has a value for each second: the usage in whole MB (null: no job ran), and the ceilings as
changes ``[second, MB]``. So 15 minutes of a worker take 3 KB.
"""

from __future__ import annotations

from typing import Any

from rqmem.observe.as_json import of_snapshot
from rqmem.observe.model import Snapshot
from rqmem.observe.problems import problems
from rqmem.observe.worker_histories import Histories, Point

_SENT_SECONDS = 15  # with each look, so that a viewer who missed some has no gap


def newest(histories: Histories, now: float) -> dict[str, list[tuple[int, float, float]]]:
    """Worker -> its points of the last seconds: second, usage, ceiling."""
    return {
        name: [(at, round(points[at][0], 1), points[at][1]) for at in sorted(points) if at > now - _SENT_SECONDS]
        for name, points in histories.points.items()
    }


def compact(histories: Histories, now: float) -> dict[str, Any]:
    """All of it: ``begin`` (epoch seconds), and of each worker ``usage_mb`` and ``ceiling_mb``."""
    begin, end = int(now) - histories.seconds + 1, int(now)
    workers = {name: _columns(points, begin, end) for name, points in histories.points.items()}
    return {"begin": begin, "workers": workers}


def of_look(snapshot: Snapshot, histories: Histories) -> dict[str, Any]:
    """As ``rqmem status --json``, and the newest ``samples`` of each worker."""
    return {**of_snapshot(snapshot, problems(snapshot)), "samples": newest(histories, snapshot.at)}


def _columns(points: dict[int, Point], begin: int, end: int) -> dict[str, list[Any]]:
    usage: list[int | None] = []
    ceilings: list[tuple[int, float]] = []
    for at in range(begin, end + 1):
        used, ceiling = points.get(at, (0.0, 0.0))
        usage.append(round(used) if ceiling else None)
        if ceiling != (ceilings[-1][1] if ceilings else 0.0):
            ceilings.append((at - begin, ceiling))
    return {"usage_mb": usage, "ceiling_mb": ceilings}
