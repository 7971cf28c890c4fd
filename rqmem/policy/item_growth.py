"""Whether memory stays of each item of a job that works in chunks: a leak, or collected results. Pure.

Usage after each chunk is kept (of many chunks the lowest of some each), and read in quarters: their lowest points are
what is there when garbage is gone. It grows by the item when each quarter begins from above the one before, the last
not much less so than on average, and by much in sum. The first chunks are left out: they import and fill caches.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from rqmem.units import MB
from rqmem.values import dataclass

FIRST_CHUNKS = 2
FEWEST_POINTS = 12
LEAST_BYTES = 8 * MB
STEADY_FRACTION = 0.25
"""Of the average growth by the item: between any two quarters."""
LASTING_FRACTION = 0.5
"""The same between the last two: a cache that fills grows less and less."""
CONFIRMED_FRACTION = 0.7
"""Of the growth: is still there when garbage has been collected."""
_KEPT_POINTS = 64


@dataclass(frozen=True)
class ItemGrowth:
    """What is known of one call of ``process_in_chunks``.

    Attributes:
        chunks: seen, the first ones left out.
        points: items done and the lowest usage in bytes, of ``width`` chunks each, oldest first.
        first: how many chunks are still to be left out.
    """

    chunks: int = 0
    points: tuple[tuple[int, int], ...] = ()
    width: int = 1
    first: int = FIRST_CHUNKS

    def after(self, items_done: int, usage_bytes: int) -> ItemGrowth:
        if self.first:
            return replace(self, first=self.first - 1)
        point, points, width = (items_done, usage_bytes), self.points, self.width
        if self.chunks % width:
            lowest = min(points[-1], point, key=lambda each: each[1])
            return replace(self, chunks=self.chunks + 1, points=(*points[:-1], lowest))
        if len(points) == _KEPT_POINTS:
            pairs = zip(points[::2], points[1::2], strict=True)
            points, width = tuple(min(pair, key=lambda each: each[1]) for pair in pairs), 2 * width
        return replace(self, chunks=self.chunks + 1, points=(*points, point), width=width)

    def per_item(self) -> float | None:
        """Bytes that stay of each item; None: nothing beyond noise."""
        lows = self._lows()
        if lows is None:
            return None
        (first_at, first), (last_at, last) = lows[0], lows[-1]
        if last - first < LEAST_BYTES or last_at <= first_at:
            return None
        mean = (last - first) / (last_at - first_at)
        steps = [(high - low) / max(1, to - at) for (at, low), (to, high) in pairwise(lows)]
        return mean if min(steps) >= STEADY_FRACTION * mean and steps[-1] >= LASTING_FRACTION * mean else None

    def confirmed(self, usage_bytes: int) -> float | None:
        """`per_item`, where usage after a collection at the end leaves no doubt."""
        lows, found = self._lows(), self.per_item()
        if lows is None or found is None:
            return None
        grown = lows[-1][1] - lows[0][1]
        return found if usage_bytes - lows[0][1] >= CONFIRMED_FRACTION * grown else None

    def _lows(self) -> list[tuple[int, int]] | None:
        """The lowest point of each quarter; None: there are too few."""
        count = len(self.points)
        if count < FEWEST_POINTS:
            return None
        quarters = [self.points[count * at // 4 : count * (at + 1) // 4] for at in range(4)]
        return [min(quarter, key=lambda each: each[1]) for quarter in quarters]
