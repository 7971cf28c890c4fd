"""Histograms of sizes and times in growing buckets, and percentiles of them with old values worth less. Pure.

As the Kubernetes vertical autoscaler keeps them (its recommender's histogram: buckets 5 % wider each, weight halved
every 24 hours). Here a bucket is counted by the hour and by the day, and the weights are given when it is read.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

Number = TypeVar("Number", int, float)

RATIO = 1.05
HALF_LIFE_SECONDS = 24 * 3600.0
_SMALLEST = 0.001
_ABOVE = "inf"


def bucket(value: float) -> int:
    """The number of the bucket that ``value`` falls into; 0 for all up to a thousandth."""
    return 0 if value <= _SMALLEST else math.ceil(math.log(value / _SMALLEST) / math.log(RATIO) - 1e-9)


@lru_cache(maxsize=2048)  # a page of a month asks for 10,000, and there are some hundred
def upper_end(number: int) -> float:
    """The largest value that falls into a bucket."""
    return _SMALLEST * RATIO**number


def weight(age_seconds: float) -> float:
    """The weight of a value of that age; a value of now has 1."""
    return 2.0 ** (-max(0.0, age_seconds) / HALF_LIFE_SECONDS)


def summed(histograms: Iterable[tuple[Mapping[Number, float], float]]) -> dict[Number, float]:
    """One histogram of several, each with its weight."""
    total: dict[Number, float] = {}
    for counts, factor in histograms:
        for number, count in counts.items():
            total[number] = total.get(number, 0.0) + factor * count
    return total


def percentile(histogram: Mapping[int, float], fraction: float) -> float | None:
    """The upper end of the bucket below which (or in which) ``fraction`` of the weight lies; None for an empty one."""
    wanted, reached = fraction * sum(histogram.values()) * (1 - 1e-12), 0.0
    if wanted <= 0:
        return percentiles(histogram, (fraction,))[0]
    for number in sorted(histogram):  # a page of a month asks 3,000 of them
        reached += histogram[number]
        if reached >= wanted:
            break
    return upper_end(number)


def percentiles(histogram: Mapping[int, float], fractions: Sequence[float]) -> list[float | None]:
    """`percentile` for each of these fractions."""
    numbers = sorted(histogram)
    reached = list(accumulate([histogram[number] for number in numbers]))
    if not reached or reached[-1] <= 0:
        return [None] * len(fractions)
    whole, last = reached[-1] * (1 - 1e-12), len(numbers) - 1  # pages ask for thousands of them
    return [upper_end(numbers[min(bisect_left(reached, fraction * whole), last)]) for fraction in fractions]


def bound(value: float, bounds: Sequence[float]) -> str:
    """The lowest of the bounds that is not below ``value``, as text; above all of them ``"inf"``."""
    at = bisect_left(bounds, value)
    return f"{bounds[at]:g}" if at < len(bounds) else _ABOVE


def cumulative(counts: Mapping[str, float], bounds: Sequence[float]) -> list[tuple[float | None, float]]:
    """Each bound and how many values are up to it, by counts under `bound`; last None and how many there are."""
    found: list[tuple[float | None, float]] = []
    reached = 0.0
    for each in bounds:
        reached += counts.get(f"{each:g}", 0)
        found.append((each, reached))
    return [*found, (None, reached + counts.get(_ABOVE, 0))]
