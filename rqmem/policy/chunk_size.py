"""How many items the next chunk of a job has. Pure.

TCP's congestion control (RFC 5681) with memory for bandwidth, and the estimate of the Kubernetes vertical autoscaler
(the highest of the past with old values worth less, and a margin):

- A chunk is planned to take half of the room it has (`room`) at the highest cost per item seen lately, and cut when
  it would take more than three quarters. So items may become two to three times as dear before they breach.
- The size doubles while twice of all that the job has grown by would still be under the warning threshold (slow
  start), later it grows by an eighth (congestion avoidance); never for a chunk longer than `TARGET_SECONDS`, and
  above the threshold only back to the declared size.
- A breach halves it, and takes it back to the declared size at least; what the chunk must have cost is remembered.

What a chunk held and gave back is the cost of its items. What stays when it is over (a leak, collected results, an
allocator that keeps its pages) takes room away, and is never remembered as their cost: else a leak of one MB a chunk
would make a chunk of one item look as dear as one of a thousand, and the size would fall to 1 for good. (It does where
every chunk needs three quarters of the room whatever its size, and gives it back. This case is not recognised.)
"""

from __future__ import annotations

import math
from dataclasses import replace

from rqmem.values import dataclass

MARGIN = 1.15  # as the vertical autoscaler's
HALF_LIFE_CHUNKS = 32  # after this number of chunks the highest cost seen counts half
PLANNED, MOST = 0.5, 0.75  # of the room
TARGET_SECONDS = 1.0  # so that stops and cursors are timely
_DECAY = 0.5 ** (1 / HALF_LIFE_CHUNKS)


@dataclass(frozen=True)
class Observation:
    """A finished chunk, of at least one item and at most its size. Bytes are usage of the job's tree of processes.

    ``peak_bytes``: the highest during this chunk, with its items still held; None: nobody looked, and the size does
    not grow on that. ``bytes_after``: when they had been released. ``warning_fraction``: MEMORY_WARNING_THRESHOLD.
    """

    items: int
    bytes_before: int
    peak_bytes: int | None
    bytes_after: int
    seconds: float
    ceiling_bytes: int
    warning_fraction: float


@dataclass(frozen=True)
class SizeState:
    """What is known so far. Kept for the next execution of the job, which continues with `resumed`."""

    declared: int  # the size at the start; time alone brings it no lower
    size: int  # of the next chunk
    adaptive: bool = True  # False: only a breach changes the size
    item_bytes: float = 0.0  # the highest cost per item seen lately, without the margin
    item_seconds: float = 0.0  # smoothed; 0: nothing was seen yet
    room_bytes: float = 0.0  # what the next chunk has
    floor_bytes: int | None = None  # the lowest usage before a chunk in this execution; None: nothing was seen yet


def room(used_bytes: float, ceiling_bytes: float, warning_fraction: float) -> float:
    """Bytes a chunk has: what is left to the warning threshold, or half of what is left to the ceiling if that is more.

    So a job whose imports alone are above the threshold is not worked off item by item. None left: 0.
    """
    return max(warning_fraction * ceiling_bytes - used_bytes, (ceiling_bytes - used_bytes) / 2, 0.0)


def start(
    declared: int, prior_kb_per_item: float | None, room_bytes: float, adaptive: bool = True
) -> tuple[int, SizeState]:
    """The first size: the declared one, or less if the history of the job type says that it does not fit.

    ``prior_kb_per_item``: a high percentile of the journal's, which is of whole runs, kept memory included: it decides
    about the first chunk only.
    """
    size, _ = resumed(SizeState(declared, declared, adaptive, item_bytes=1024 * (prior_kb_per_item or 0.0)), room_bytes)
    return size, SizeState(declared, size, adaptive, room_bytes=room_bytes)


def resumed(state: SizeState, room_bytes: float) -> tuple[int, SizeState]:
    """The first size in another execution, which may have less room: another horse, another worker's ceiling."""
    size = int(min(state.size, _fitting(state.item_bytes * MARGIN, room_bytes))) if state.adaptive else state.size
    return size, replace(state, size=size, room_bytes=room_bytes, floor_bytes=None)


def next_size(state: SizeState, seen: Observation) -> tuple[int, SizeState]:
    """The size after a chunk, and what is known then.

    Promises (tested): at least 1; at most twice the one before; planned, if it has more than one item, to take at
    most `MOST` of the room; unchanged unless ``adaptive``.
    """
    left = max(seen.bytes_before, seen.bytes_after)
    top = max(left, seen.peak_bytes or 0)
    floor = seen.bytes_before if state.floor_bytes is None else min(seen.bytes_before, state.floor_bytes)
    seconds = seen.seconds / seen.items
    new = replace(
        state,
        item_bytes=max((top - left) / seen.items, state.item_bytes * _DECAY),
        item_seconds=(state.item_seconds + seconds) / 2 if state.item_seconds else seconds,
        room_bytes=room(seen.bytes_after, seen.ceiling_bytes, seen.warning_fraction),
        floor_bytes=floor,
    )
    if not state.adaptive:
        return state.size, new
    size, warning = state.size, seen.warning_fraction * seen.ceiling_bytes
    kept = max(0, seen.bytes_after - seen.bytes_before) / seen.items
    item_bytes = new.item_bytes * MARGIN + kept  # the next chunk may keep as much as this one, so it needs that too
    fitting = _fitting(item_bytes, new.room_bytes)
    if size * item_bytes > MOST * new.room_bytes:
        size = int(min(size, fitting))
    elif seen.peak_bytes is not None:
        grown = 2 * seen.items if floor + 2 * (top - floor) <= warning else seen.items + max(1, seen.items // 8)
        size = max(size, int(min(grown, fitting, math.inf if top <= warning else state.declared)))
    if new.item_seconds:
        size = max(1, int(min(size, max(TARGET_SECONDS / new.item_seconds, state.declared))))
    return size, replace(new, size=size)


def after_breach(state: SizeState, size: int) -> tuple[int, SizeState]:
    """The size after a chunk of ``size`` items breached (or its horse was lost), and what is known then.

    It is at most half, fixed or not, and at most the declared one. Its items cost at least the room they had.
    """
    smaller = max(1, min(size // 2, state.declared))
    item_bytes = max(state.item_bytes, state.room_bytes / size)
    return smaller, replace(state, size=smaller, item_bytes=item_bytes)


def _fitting(item_bytes: float, room_bytes: float) -> float:
    return max(1.0, PLANNED * room_bytes / item_bytes) if item_bytes > 0 else math.inf
