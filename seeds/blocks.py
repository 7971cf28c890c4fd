"""Streams of made-up rows that can begin anywhere: each block of rows is drawn from a random sequence of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

BLOCK = 1_000

T = TypeVar("T")


def stream(name: str, seed: int, count: int, start: int, make: Callable[[Random, int], T]) -> Iterator[T]:
    """``make(rng, index)`` for ``count`` indexes from ``start`` on, the same wherever the stream begins.

    ``make`` must draw from ``rng.random`` alone, whose sequence Python promises to keep.
    """
    end = start + count
    for first in range(start - start % BLOCK, end, BLOCK):
        rng = Random(f"{name} {seed} {first}")
        for index in range(first, min(first + BLOCK, end)):
            made = make(rng, index)
            if index >= start:
                yield made


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of the items, each as likely as the others."""
    return items[int(rng.random() * len(items))]


def normal(rng: Random) -> float:
    """A standard normal draw (Box and Muller), from ``random`` alone so that it stays the same."""
    return math.sqrt(-2.0 * math.log(1.0 - rng.random())) * math.cos(math.tau * rng.random())
