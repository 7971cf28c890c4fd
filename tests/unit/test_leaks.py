"""Leaks are told from what only looks like one: properties of the policy, and a few of the simulated histories.

All of them: ``python -m scripts.leak_histories``.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy import leaks
from rqmem.policy.leaks import (
    FREE_SECONDS_PER_BYTE,
    LEAST_BYTES,
    LEAST_FRACTION,
    LEAST_PROBES,
    Leak,
    Leaks,
    Probed,
    TypeProbes,
)
from rqmem.units import MB
from scripts import leak_histories

CEILING = 256 * MB
LEAST = min(LEAST_BYTES, LEAST_FRACTION * CEILING)
lives = st.lists(st.lists(st.integers(0, 4 * MB), min_size=1, max_size=60), min_size=1, max_size=8)


def found_in(horses: list[list[int]]) -> list[Leak]:
    """What is found in horses one after the other, in which each run of a type is a probe that left so much."""
    known, found = Leaks(), []
    for lefts in horses:
        known = known.in_new_horse()
        for left in lefts:
            leak, known = leaks.observe(known, "a.Job", left, CEILING)
            found += [leak] if leak is not None else []
    return found


@given(st.lists(st.lists(st.integers(-4 * MB, 0), max_size=60), max_size=8))
def test_what_leaves_nothing_does_not_leak(horses: list[list[int]]) -> None:
    assert found_in(horses) == []


@given(st.lists(st.integers(0, 200 * MB), max_size=40))
def test_first_runs_count_for_nothing(lefts: list[int]) -> None:
    assert found_in([[left] for left in lefts]) == []


@given(lives)
def test_little_in_sum_is_no_leak(horses: list[list[int]]) -> None:
    total = sum(sum(lefts) for lefts in horses)
    scale = min(1.0, 0.7 * LEAST / total) if total else 1.0
    assert found_in([[int(left * scale) for left in lefts] for lefts in horses]) == []


@given(st.integers(10 * 1024, 10 * MB))
def test_a_steady_leak_is_found_when_it_is_that_much(bytes_per_run: int) -> None:
    runs = max(LEAST_PROBES, math.ceil(LEAST / bytes_per_run)) + 2
    [leak, *_] = found_in([[bytes_per_run] * runs])
    assert leak.bytes_per_run == pytest.approx(bytes_per_run)


@given(st.integers(100 * 1024, 3 * MB), st.integers(2 * LEAST_PROBES, 40))
def test_and_over_horses_that_live_short(bytes_per_run: int, runs: int) -> None:
    count = max(3, math.ceil(LEAST / (bytes_per_run * runs))) + 2
    assert found_in([[bytes_per_run] * runs] * count)


@given(st.integers(20, 300), st.integers(0, 300))
def test_a_cache_that_is_full_before_it_is_much_is_none(entries: int, idle: int) -> None:
    size = int(0.9 * LEAST)
    assert found_in([[0] + [size // entries] * entries + [0] * (idle + entries)]) == []


@given(st.lists(st.integers(-MB, MB), max_size=400))
def test_what_is_remembered_is_bounded_and_adds_up(lefts: list[int]) -> None:
    past = TypeProbes()
    for left in lefts:
        past = past.probed(left)
    assert len(past.blocks) <= 64 and len(past.last) <= leaks.FAST_PROBES
    assert (past.probes, sum(past.blocks)) == (len(lefts), sum(lefts))


@given(st.integers(0, 7 * MB), st.floats(0, 1e6))
def test_a_horse_that_has_not_grown_pays_nothing(grown: int, worked: float) -> None:
    assert not leaks.worth_a_probe(grown, 0.0, worked, Probed())


@given(st.integers(0, 100 * MB), st.floats(0.001, 2), st.floats(0.0001, 1))
def test_probes_keep_to_their_share(grown: int, probe_seconds: float, run_seconds: float) -> None:
    spent = worked = 0.0
    for _ in range(200):
        spent += probe_seconds * leaks.worth_a_probe(grown, spent, worked, Probed())
        worked += run_seconds
    assert spent <= FREE_SECONDS_PER_BYTE * grown + 0.1 * worked + probe_seconds


def test_a_quiet_type_is_probed_now_and_then() -> None:
    probed, probes = Probed(), 0
    for _ in range(80):
        probe = leaks.worth_a_probe(30 * MB, 0.0, 1.0, probed)
        probed, probes = probed.after(0 if probe else None), probes + probe
    assert 8 <= probes <= 16
    for _ in range(80):
        probed = probed.after(100_000)
    assert leaks.worth_a_probe(30 * MB, 0.0, 1.0, probed)


def test_other_types_in_between_change_nothing() -> None:
    known, found = Leaks(), []
    for run in range(200):
        job = ("a.Leaky", "b.Garbage", "c.Cache")[run % 3]
        left = {"a.Leaky": MB, "b.Garbage": (-1) ** run * 3 * MB, "c.Cache": 0}[job]
        leak, known = leaks.observe(known, job, left, CEILING)
        found += [leak.job] if leak is not None else []
    assert set(found) == {"a.Leaky"}


@pytest.mark.parametrize("kind", leak_histories.HEALTHY)
def test_simulated_health_raises_no_alarm(kind: str) -> None:
    for seed in range(3):
        assert not any(leak_histories.history(leak_histories.HEALTHY[kind], seed)), seed


@pytest.mark.parametrize(("size", "runs"), [("10 KB", 12_000), ("100 KB", 1200), ("1 MB", 120), ("10 MB", 16)])
def test_simulated_leaks_are_found(size: str, runs: int) -> None:
    after, wrong = leak_histories.delays(leak_histories.LEAKS[size], 3)
    assert (len(after), wrong) == (3, 0)
    assert max(after) <= runs
