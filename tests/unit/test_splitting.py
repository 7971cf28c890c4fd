"""When a job splits, and how large its children are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rqmem.events import Breach
from rqmem.policy.splitting import (
    MOST_CUTS,
    Decision,
    fitting_items,
    item_mb,
    items_per_child,
    parts_of_rest,
    should_split,
)
from rqmem.units import MB


def asked(count: int | None, bytes_per_item: float | None, split_above: int | None = None, **other: object) -> Decision:
    """Under 256 MB, of which 56 MB are used: 148.8 MB are free up to the warning threshold."""
    given = {"ceiling_bytes": 256 * MB, "used_bytes": 56 * MB, "warning_fraction": 0.8, "auto_split_enabled": True}
    options = {**given, "max_items_per_child": 500, "split_above_items": split_above, **other}
    return should_split(count, bytes_per_item, **options)  # type: ignore[arg-type]


def test_a_job_splits_when_its_items_do_not_fit_beside_what_is_used() -> None:
    assert not asked(72, MB, warning_fraction=0.5).yes
    assert asked(73, MB, warning_fraction=0.5) == Decision(
        True, "73 items of 1024.0 KB are 73 MB, and 72 MB are free up to the warning threshold", 37
    )
    assert not asked(152_371, 1024).yes
    assert asked(152_372, 1024) == Decision(
        True, "152,372 items of 1.0 KB are 148.8 MB, and 148.8 MB are free up to the warning threshold", 500
    )


def test_a_declared_threshold_decides_alone() -> None:
    assert asked(1001, None, split_above=1000) == Decision(True, "1,001 items, and it splits above 1,000", 500)
    assert asked(1001, 1.0, split_above=1000).yes
    assert not asked(1000, 10 * MB, split_above=1000).yes


def test_it_says_why_not() -> None:
    assert asked(None, 1.0, split_above=1) == Decision(False, "its source does not know how many items it has")
    assert "declare bytes_per_item or split_above_items" in asked(10**9, None).reason
    off = asked(10**9, 1024, split_above=10, auto_split_enabled=False)
    assert off == Decision(False, "JOB_AUTO_SPLIT_ENABLED is false")
    for count in (0, 1):
        assert asked(count, 1024 * MB, split_above=0) == Decision(False, f"{count} items cannot be cut in two")


def test_a_job_without_any_room_splits_into_children_of_one_item() -> None:
    assert asked(10, 1024, used_bytes=300 * MB).items_per_child == 1


def test_a_job_whose_imports_are_above_the_threshold_is_not_split_item_by_item() -> None:
    decision = asked(600, 2048, used_bytes=230 * MB)  # 204.8 MB are the threshold, and 26 MB left to the ceiling
    assert decision.yes
    assert decision.items_per_child == 300
    assert asked(10**6, 2048, used_bytes=230 * MB).items_per_child == 500
    assert asked(10**6, 65_536, used_bytes=230 * MB).items_per_child == 13 * 16


@given(st.integers(2, 10**7), st.none() | st.floats(0, 1e9), st.floats(0, 1e10), st.integers(1, 10**5))
def test_children_are_never_too_large_and_always_several(
    count: int, bytes_per_item: float | None, usable: float, most: int
) -> None:
    items = items_per_child(count, bytes_per_item, usable, most)
    assert 1 <= items <= most
    assert -(-count // items) >= 2
    if bytes_per_item and items > 1:
        assert items * bytes_per_item <= usable * (1 + 1e-9)
    assert items <= fitting_items(bytes_per_item, usable, most) <= most


@given(st.integers(0, 2), st.integers(0, 100), st.integers(0, 2 * MOST_CUTS))
def test_what_is_left_is_cut_until_one_item_is_alone(left: int, done: int, cuts: int) -> None:
    parts = parts_of_rest(left, done, cuts)
    if cuts >= MOST_CUTS:
        assert parts == 0
    elif left > 1:
        assert parts == 2
    else:
        assert parts == (1 if left and done else 0)


def test_an_isolated_item_takes_what_the_breach_used_above_what_was_held_before() -> None:
    told = {"limit_mb": 200, "layer": "watch", "processes": 1, "operation": "items 1-1", "job": "a.B", "job_id": "1"}
    about = {"queue": "q", "worker": "w", "used_mb": 201, "peak_mb": 230}
    assert item_mb(Breach(**told, **about, from_mb=50, baseline_mb=40)) == 180  # type: ignore[arg-type]
    assert item_mb(Breach(**told, **about, baseline_mb=40)) == 190  # type: ignore[arg-type]
    assert item_mb(Breach(**told, **about)) is None  # type: ignore[arg-type]
