"""Growth in Python objects, and in C code that makes them. Each ends at ``mb`` MB if nobody stops it."""

from __future__ import annotations

import itertools
import time
from importlib import import_module
from typing import Any

from rqmem.units import MB


def lists(mb: int = 1500) -> None:
    """Lists of a thousand numbers."""
    rows = []
    for _ in range(mb * 130):
        rows.append([0] * 1000)


def dicts(mb: int = 1500) -> None:
    """Dictionaries of a hundred strings."""
    rows = []
    for _ in range(mb * 140):
        rows.append({str(number): number for number in range(100)})


def small_objects(mb: int = 1500) -> None:
    """Millions of small instances."""
    first = previous = _Link(None)
    for _ in range(mb * MB // 40):
        previous.next = _Link(None)
        previous = previous.next
    first.next = None


class _Link:
    __slots__ = ("next",)

    def __init__(self, following: _Link | None) -> None:
        self.next = following


def blocks(mb: int = 1500) -> None:
    """Byte arrays of 1 MB."""
    held = []
    for _ in range(mb):
        held.append(bytearray(MB))


def one_block(mb: int = 1500) -> None:
    """One byte array of 1.5 GB."""
    bytearray(mb * MB)


def growing_text(step_mb: int = 1, mb: int = 1500) -> None:
    """A text that gets longer, MB by MB."""
    text = "x" * (step_mb * MB)
    while len(text) < mb * MB:
        text += text[: step_mb * MB]


def slow_leak(step_mb: int = 1, mb: int = 1500) -> None:
    """A leak of 1 MB every 5 ms."""
    leak = []
    for _ in range(mb // step_mb):
        leak.append(bytearray(step_mb * MB))
        time.sleep(0.005)


def sorted_copies(mb: int = 1500) -> None:
    """sorted() whose keys, made by Python code, are copies."""
    sorted([b"x"] * (16 * mb), key=lambda item: item * (MB // 16))


def long_sorted(mb: int = 1500) -> None:
    """sorted() whose keys are made in C: no Python code runs meanwhile."""
    sorted([MB // 16] * (16 * mb), key="x".__mul__)


def product_in_c(mb: int = 1500) -> None:
    """list() of an iterator in C."""
    list(itertools.islice(itertools.product(range(300), repeat=3), mb * MB // 80))


def joined_generator(mb: int = 1500) -> None:
    """A generator that bytes.join collects before it joins."""
    b"".join(b"x" * (MB // 4) for _ in range(4 * mb))


def numpy_arrays(mb: int = 1500) -> None:
    """numpy arrays of 8 MB."""
    numpy = import_module("numpy")
    arrays = []
    for _ in range(mb // 8):
        arrays.append(numpy.ones(MB))


def large_when_serialised(mb: int = 1000) -> Any:
    """A result that is small until it is pickled."""
    return _LargeWhenPickled(mb)


class _LargeWhenPickled:
    def __init__(self, mb: int) -> None:
        self.mb = mb

    def __reduce__(self) -> tuple[Any, ...]:
        return len, (b"x" * (self.mb * MB),)
