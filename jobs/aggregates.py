"""Count, mean, variance and trend of what was measured, as a few numbers that can be merged. Pure.

No measurement is kept: the figures of a million calls are as large as those of one. The figures of two workers can be
merged in any order; only rounding differs. Sums of squared deviations from the mean are kept, not sums of squares:
their difference would lose all digits if the spread is small compared with the mean.

Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979); the
same for sums of products in Pébay, "Formulas for Robust, One-Pass Parallel Computation of Covariances" (SAND2008-6212).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

Number = Any
"""A float, or an SQL expression of one: the formulas are written once, for Python and for the database."""


@dataclass(frozen=True)
class Moments:
    """What is known of at least one measurement.

    Attributes:
        count: of measurements.
        mean: of them.
        squares: the sum of their squared deviations from it.
        time_mean: of the moments they were made at; the unit is the caller's.
        time_squares: the sum of the squared deviations of those.
        products: the sum of both deviations, multiplied.
    """

    count: Number
    mean: Number
    squares: Number
    time_mean: Number
    time_squares: Number
    products: Number

    @classmethod
    def of(cls, value: float, time: float) -> Moments:
        return cls(1, value, 0.0, time, 0.0, 0.0)

    @property
    def variance(self) -> float | None:
        """Of the sample (divided by one less than the count); None for one measurement."""
        return self.squares / (self.count - 1) if self.count > 1 else None

    @property
    def slope(self) -> float | None:
        """Trend: the least-squares line's rise per unit of time; None where all were made at one moment."""
        return self.products / self.time_squares if self.time_squares > 0 else None


def merged(one: Moments, other: Moments) -> Moments:
    count = one.count + other.count
    step, time_step = other.mean - one.mean, other.time_mean - one.time_mean
    # Floats come first in each term: two integers would be divided as integers by some databases.
    return Moments(
        count=count,
        mean=one.mean + step * other.count / count,
        squares=one.squares + other.squares + step * step * one.count * other.count / count,
        time_mean=one.time_mean + time_step * other.count / count,
        time_squares=one.time_squares + other.time_squares + time_step * time_step * one.count * other.count / count,
        products=one.products + other.products + step * time_step * one.count * other.count / count,
    )


def all_merged(moments: Iterable[Moments]) -> Moments | None:
    """What is known of all of them; None for none."""
    found = list(moments)
    return reduce(merged, found) if found else None
