"""Whether a job splits, and how many items its children get. Pure."""

from __future__ import annotations

from rqmem.events import Breach
from rqmem.policy.chunk_size import room
from rqmem.units import MB, show_mb
from rqmem.values import dataclass

MOST_CUTS = 1000
"""Of one job and all below it, after breaches. More cuts mean that it is not a few items that do not fit."""


@dataclass(frozen=True)
class Decision:
    """Whether to split, why or why not in words for the log, and the items of a child (0 where it does not)."""

    yes: bool
    reason: str
    items_per_child: int = 0


def should_split(
    count: int | None,
    bytes_per_item: float | None,
    *,
    ceiling_bytes: int,
    used_bytes: int,
    warning_fraction: float,
    split_above_items: int | None,
    auto_split_enabled: bool,
    max_items_per_child: int,
) -> Decision:
    """Split where ``count`` items at once do not fit below the warning threshold, given what is used already.

    ``count``: None: nobody knows. ``bytes_per_item``: given, or measured; None: nothing is known.
    ``split_above_items``, where set, decides alone, whatever the items weigh. ``auto_split_enabled``:
    JOB_AUTO_SPLIT_ENABLED. ``max_items_per_child``: as `items_per_child` takes it.
    """
    if not auto_split_enabled:
        return Decision(False, "JOB_AUTO_SPLIT_ENABLED is false")
    if count is None:
        return Decision(False, "its source does not know how many items it has")
    if count < 2:
        return Decision(False, f"{count} items cannot be cut in two")
    usable = max(0.0, warning_fraction * ceiling_bytes - used_bytes)
    if split_above_items is not None:
        yes = count > split_above_items
        reason = f"{count:,} items, and it splits above {split_above_items:,}"
    elif bytes_per_item is None:
        return Decision(False, "nothing is known of what an item costs: declare bytes_per_item or split_above_items")
    else:
        needed = count * bytes_per_item
        yes = needed > usable
        reason = (
            f"{count:,} items of {bytes_per_item / 1024:.1f} KB are {show_mb(needed / MB)} MB, "
            f"and {show_mb(usable / MB)} MB are free up to the warning threshold"
        )
    if not yes:
        return Decision(False, reason)
    # A child has its parent's imports: where these alone are above the threshold, it has what a chunk has there.
    room_bytes = room(used_bytes, ceiling_bytes, warning_fraction)
    return Decision(True, reason, items_per_child(count, bytes_per_item, room_bytes, max_items_per_child))


def items_per_child(count: int, bytes_per_item: float | None, room_bytes: float, most: int) -> int:
    """Items of a child: what fits, at most ``most`` (the job's own, or JOB_MAX_ITEMS_PER_CHILD), never all of them."""
    return max(1, min(fitting_items(bytes_per_item, room_bytes, most), (count + 1) // 2))


def fitting_items(bytes_per_item: float | None, room_bytes: float, most: int) -> int:
    """How many items fit, at most ``most``; that many where nothing is known of what they cost.

    Where not one item fits by the estimate it is 1: estimates err, and the ceiling judges.
    """
    return max(1, int(min(most, room_bytes / bytes_per_item))) if bytes_per_item else most


def parts_of_rest(fewest_items: int, items_done: int, cuts: int) -> int:
    """Into how many children what is left after a breach is cut; 0: into none: nothing is left, or does not fit alone.

    Args:
        fewest_items: are left: 0, 1, or 2 for more.
        items_done: of the same source, before the breach. With some, the last item is made a child too: it fails
            alone, and what was done is kept.
        cuts: of the job and all below it so far.
    """
    if cuts >= MOST_CUTS:
        return 0
    return 2 if fewest_items > 1 else int(fewest_items == 1 and items_done > 0)


def item_mb(breach: Breach) -> float | None:
    """What the one item that was in hand had taken when it breached, in MB: above what was held before it.

    Less than it needs, since it was stopped on its way up. None: the breach does not say where it grew from.
    """
    before = breach.from_mb if breach.from_mb is not None else breach.baseline_mb
    return max(0.0, breach.peak_mb - before) if before is not None else None
