"""ItemGrowth by the item within one job: told where it is there, and not where it is noise, a cache or garbage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy.item_growth import LEAST_BYTES, ItemGrowth
from rqmem.units import MB

BASE = 30 * MB


def seen(usages: list[int], items: int = 100) -> ItemGrowth:
    growth = ItemGrowth()
    for number, usage in enumerate(usages, 1):
        growth = growth.after(number * items, usage)
    return growth


@given(st.integers(14, 2000), st.integers(1, 50), st.integers(0, 2**32))
def test_a_leak_is_told_with_its_size(chunks: int, kb: int, seed: int) -> None:
    chance = random.Random(seed)
    held = [BASE + 100 * kb * 1024 * number + chance.randrange(256 * 1024) for number in range(chunks)]
    found = seen(held).per_item()
    if found is not None:
        assert found == pytest.approx(kb * 1024, rel=0.3)
    if 100 * kb * 1024 * (chunks - 2) >= 2 * LEAST_BYTES:
        assert found is not None and seen(held).confirmed(held[-1]) is not None


@given(st.lists(st.integers(0, LEAST_BYTES - 1), max_size=300))
def test_noise_is_not(noise: list[int]) -> None:
    assert seen([BASE + each for each in noise]).per_item() is None


@given(st.integers(2, 100), st.integers(0, 2**32))
def test_garbage_that_comes_and_goes_is_not(period: int, seed: int) -> None:
    """Collected each so many chunks: the lowest points stay where they are."""
    chance = random.Random(seed)
    held = [BASE + (number % period) * MB + chance.randrange(MB) for number in range(8 * period + 8)]
    assert seen(held).per_item() is None


@given(st.integers(16, 500), st.integers(8, 200))
def test_garbage_that_was_never_collected_is_not_confirmed(chunks: int, size_mb: int) -> None:
    held = [BASE + size_mb * MB * number // chunks for number in range(chunks)]
    assert seen(held).confirmed(BASE + MB) is None


@given(st.integers(16, 500), st.floats(0.05, 0.5), st.integers(8, 200))
def test_a_cache_that_fills_is_not(chunks: int, full_at: float, size_mb: int) -> None:
    held = [BASE + int(size_mb * MB * min(1.0, number / (full_at * chunks))) for number in range(chunks)]
    assert seen(held).per_item() is None


@given(st.integers(14, 300), st.integers(8, 200), st.integers(0, 299))
def test_one_step_is_not(chunks: int, size_mb: int, at: int) -> None:
    held = [BASE + size_mb * MB * (number >= at % chunks) for number in range(chunks)]
    assert seen(held).per_item() is None


def test_few_chunks_tell_nothing_and_many_are_few_points() -> None:
    assert seen([BASE + 10 * MB * number for number in range(10)]).per_item() is None
    growth = seen([BASE + MB * number for number in range(5000)])
    assert len(growth.points) <= 64
    assert growth.per_item() == pytest.approx(MB / 100, rel=0.05)
