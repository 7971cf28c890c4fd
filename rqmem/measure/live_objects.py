"""What kinds of objects hold the memory of this process: an estimate from samples, quick and small.

Taken at a breach, where both time and memory are short: a few thousand objects are looked at, whatever there
is. Objects that the garbage collector does not track (text, numbers, arrays) are found through what holds
them, and through the variables of the running functions. Code of the objects is never called, so their types are
asked and not they; and what is just being built is not touched where it may be empty (`_sample`).
"""

from __future__ import annotations

import gc
import heapq
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import CO_OPTIMIZED
from itertools import chain, islice
from random import Random
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

_VISITS = 3_000
_PER_CONTAINER = 20
_DEPTH = 4
_LARGEST = 50
_CONTAINERS = (list, dict, set)
_SHARED_BY = 100  # references from which an object counts as shared: an interned text, a small number
_POINTER_BYTES = 8
_LARGEST_TUPLE_BYTES = 2**20  # a list of all it holds is as large
_COPIED_BYTES = 160  # by listing an object frozen before a fork: its page was shared until then
_NO_DATA = (ModuleType, FunctionType, CodeType, FrameType, type)


@dataclass
class Kind:
    """Roughly how many objects of one type there are, and the bytes that they take themselves."""

    count: float = 0.0
    bytes: float = 0.0


Kinds = dict[str, Kind]


def kinds(
    frame: FrameType | None = None, spare_bytes: int | None = None, modules: Iterable[ModuleType] | None = None
) -> Kinds:
    """Kinds of what this process holds beyond what was frozen (`gc.freeze`), by type name.

    Args:
        frame: the innermost running one; what its variables and its callers' hold counts too.
        spare_bytes: memory that the look may take; None: any. Given, the process must be one that ends soon:
            to see how much there is, everything is frozen. Where a list of it does not fit, only what the
            frames' variables hold is looked at.
        modules: begin with the largest containers, those of these modules included, which a sample might miss: takes
            some 0.1 us for each object there is. None: leave that.
    """
    walk = _Walk()
    tracked, first = _tracked(spare_bytes)
    while frame is not None:  # before the samples, which might miss the one list that holds large blocks
        for value in _variables(frame):
            walk.visit(value, 1, into_tracked=not tracked, depth=0)
        frame = frame.f_back
    if modules is not None:
        for value in _largest(islice(tracked, first, None), modules):
            walk.visit(value, 1, into_tracked=False, depth=0)
    count = min(len(tracked) - first, _VISITS)
    for index in Random(0).sample(range(first, len(tracked)), count):
        walk.visit(tracked[index], (len(tracked) - first) / count, into_tracked=False, depth=0)
    return walk.found


def _variables(frame: FrameType) -> list[Any]:
    """What a frame's variables hold. Before Python 3.13 that makes a copy, which would outlive them in the frame."""
    variables = frame.f_locals
    values = list(variables.values())
    if isinstance(variables, dict) and frame.f_code.co_flags & CO_OPTIMIZED:
        variables.clear()
    return values


def _tracked(spare_bytes: int | None) -> tuple[list[Any], int]:
    """The collector's objects, and the index of the first that was not frozen; none where they do not fit."""
    if spare_bytes is None or _POINTER_BYTES * sys.getallocatedblocks() <= spare_bytes:
        return gc.get_objects(), 0
    before = gc.get_freeze_count()
    gc.freeze()  # moves lists; the objects are not touched
    count = gc.get_freeze_count()
    if _POINTER_BYTES * count + _COPIED_BYTES * before > spare_bytes:
        return [], 0
    gc.unfreeze()
    tracked = gc.get_objects()  # those frozen first come first
    gc.freeze()
    return tracked, before


def _largest(tracked: Iterable[Any], modules: Iterable[ModuleType]) -> list[Any]:
    """Of the collector's objects, and of modules' variables: it does not track a dict of texts, say."""
    each = chain(tracked, chain.from_iterable(list(vars(module).values()) for module in modules))
    return heapq.nlargest(_LARGEST, (value for value in each if type(value) in _CONTAINERS), key=len)


def growth(now: Kinds, before: Mapping[str, Kind]) -> list[tuple[str, int, int]]:
    """Type, objects more and bytes more than ``before``, most bytes first."""
    grown = []
    for name, kind in now.items():
        old = before.get(name, Kind())
        grown.append((name, round(kind.count - old.count), round(kind.bytes - old.bytes)))
    return sorted((each for each in grown if each[2] > 0), key=lambda each: -each[2])


class _Walk:
    def __init__(self) -> None:
        self.found: Kinds = {}
        self._seen: set[int] = set()
        self._visits = 0

    def visit(self, value: Any, weight: float, *, into_tracked: bool, depth: int) -> None:
        """Count ``value`` for ``weight`` objects like it, and a sample of what it holds."""
        if self._visits > 10 * _VISITS or id(value) in self._seen or issubclass(type(value), _NO_DATA):
            return
        self._visits += 1
        self._seen.add(id(value))
        kind = self.found.setdefault(_name(type(value)), Kind())
        kind.count += weight
        kind.bytes += weight * _size(value)
        if depth >= _DEPTH:
            return
        held, total = _sample(value)
        for each in held:
            if sys.getrefcount(each) < _SHARED_BY and (into_tracked or not gc.is_tracked(each)):
                share = weight * total / len(held)
                self.visit(each, share, into_tracked=into_tracked, depth=depth + 1)


def _sample(value: Any) -> tuple[list[Any], int]:
    """Some of what a container holds, evenly picked where that is cheap, and how much there is.

    ``tuple(generator)`` is found while the generator runs, with places that are still empty: to read one ends the
    process, so only `gc.get_referents`, which passes over them, may look into a tuple.
    """
    kind = type(value)
    if issubclass(kind, list):
        total = list.__len__(value)
        return list.__getitem__(value, slice(0, None, max(1, total // _PER_CONTAINER))), total
    if issubclass(kind, tuple) and _size(value) <= _LARGEST_TUPLE_BYTES:
        held = gc.get_referents(value)
        return held[:: max(1, len(held) // _PER_CONTAINER)], len(held)
    if issubclass(kind, dict):
        return _first(dict.values(value)), dict.__len__(value)
    if kind is set:
        return _first(value), set.__len__(value)
    if issubclass(kind, (str, bytes, bytearray, int, float)):
        return [], 0
    if _size(value) > 64 * 1024:  # a list of all it refers to might be as large
        return [], 0
    held = gc.get_referents(value)
    return held[:_PER_CONTAINER], len(held)


def _first(values: Iterable[Any]) -> list[Any]:
    try:
        return list(islice(values, _PER_CONTAINER))
    except RuntimeError:  # another thread changes it
        return []


def _size(value: Any) -> int:
    """Bytes of the object itself, by its type's own answer; 0 where that is Python code or fails."""
    if isinstance(type(value).__sizeof__, FunctionType):
        return 0
    try:
        return int(type(value).__sizeof__(value))  # type: ignore[call-arg]
    except Exception:  # noqa: BLE001  a C type may raise anything
        return 0


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
