"""The chunk size: what it promises over any chunks, and what it does with simulated jobs."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy.chunk_size import (
    HALF_LIFE_CHUNKS,
    MARGIN,
    MOST,
    Observation,
    SizeState,
    after_breach,
    next_size,
    resumed,
    room,
    start,
)
from rqmem.store import codec
from rqmem.units import MB
from scripts.chunk_size_plot import main
from scripts.simulated_jobs import BASELINE_MB, WARNING_FRACTION, Run, SimulatedJob, catalogue, run

CEILINGS_MB = (96, 128, 256, 512)
FIXED = (100, 1000, 10_000)

sizes_mb = st.floats(0, 600)
# Of a chunk: usage before, what its items held, what it left, seconds, and whether somebody looked at the peak.
chunks = st.tuples(sizes_mb, st.floats(0, 300), st.floats(-50, 100), st.floats(0, 30), st.booleans())
declared_sizes = st.integers(1, 10**5)


def observed(items: int, chunk: tuple[float, float, float, float, bool], ceiling_mb: float = 256) -> Observation:
    before, held, left, seconds, looked = chunk
    after = max(0.0, before + left)
    peak = int((max(before, after) + held) * MB) if looked else None
    return Observation(items, int(before * MB), peak, int(after * MB), seconds, int(ceiling_mb * MB), WARNING_FRACTION)


@given(
    declared_sizes,
    st.none() | st.floats(0, 1e6),
    st.lists(st.tuples(chunks, st.sampled_from([1.0, 1.0, 0.4])), max_size=30),
    st.floats(64, 600),
)
def test_a_chunk_never_more_than_doubles_and_is_never_planned_beyond_its_room(
    declared: int,
    prior: float | None,
    timeline: list[tuple[tuple[float, float, float, float, bool], float]],
    ceiling_mb: float,
) -> None:
    size, state = start(declared, prior, 100.0 * MB)
    assert 1 <= size <= declared
    for chunk, part in timeline:
        items = max(1, int(size * part))  # a source may have had no more
        seen = observed(items, chunk, ceiling_mb)
        following, state = next_size(state, seen)
        assert following == state.size
        assert 1 <= following <= 2 * size
        kept = max(0, seen.bytes_after - seen.bytes_before) / items
        planned = following * (MARGIN * state.item_bytes + kept)
        assert following == 1 or planned <= MOST * state.room_bytes * (1 + 1e-9)
        if seen.peak_bytes is None:
            assert following <= size
        size = following


@given(declared_sizes, st.none() | st.floats(0, 1e6), st.lists(chunks, max_size=10))
def test_a_fixed_size_is_changed_by_a_breach_only(
    declared: int, prior: float | None, timeline: list[tuple[float, float, float, float, bool]]
) -> None:
    size, state = start(declared, prior, 1.0, adaptive=False)
    for chunk in timeline:
        assert size == declared
        size, state = next_size(state, observed(size, chunk))
    smaller, state = after_breach(state, size)
    assert smaller == max(1, declared // 2)
    assert resumed(state, 1.0)[0] == next_size(state, observed(smaller, (60, 1, 0, 0.1, True)))[0] == smaller


@given(declared_sizes, declared_sizes, st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9))
def test_after_a_breach_at_most_half_also_in_the_next_execution(
    declared: int, size: int, item_bytes: float, room_before: float, room_after: float
) -> None:
    state = SizeState(declared, size, item_bytes=item_bytes, room_bytes=room_before)
    smaller, state = after_breach(state, size)
    assert 1 <= smaller <= max(1, size // 2)
    assert smaller <= declared
    begun, state = resumed(codec.from_json(SizeState, codec.to_json(state)), room_after)
    assert 1 <= begun <= smaller
    assert state.room_bytes == room_after


def test_a_state_survives_json_and_a_newer_rqmem() -> None:
    _, state = next_size(start(100, None, 1e8)[1], observed(100, (60, 10, 1, 0.5, True)))
    assert codec.from_json(SizeState, codec.to_json(state)) == state
    assert codec.from_json(SizeState, codec.to_json(state).replace("{", '{"colour": "red", ', 1)) == state


def test_what_the_journal_knows_makes_only_the_first_chunk_smaller() -> None:
    assert start(100, None, 10 * MB)[0] == 100
    assert start(100, 1.0, 10 * MB)[0] == 100
    size, state = start(100, 1024.0, 10 * MB)
    assert size == 4  # half of 10 MB, at 1 MB an item and the margin
    size, state = next_size(state, observed(size, (60, 0.04, 0, 0.01, True)))
    assert size == 8
    assert state.item_bytes == pytest.approx(0.01 * MB, rel=0.001)


def test_growth_stops_at_the_target_time_and_time_alone_goes_no_lower_than_declared() -> None:
    size, state = start(100, None, 100 * MB)
    for _ in range(20):
        size, state = next_size(state, observed(size, (60, 0, 0, 0.001 * size, True)))
    assert size == 1000
    for _ in range(20):
        size, state = next_size(state, observed(size, (60, 0, 0, 1.0 * size, True)))
    assert size == 100


def test_one_slow_chunk_is_no_slow_job() -> None:
    state = SizeState(100, 1000, item_seconds=0.001)
    size, state = next_size(state, observed(1000, (60, 0, 0, 10.0, True)))
    assert size == 181
    for _ in range(10):
        size, state = next_size(state, observed(size, (60, 0, 0, 0.001 * size, True)))
    assert size > 950


def test_items_a_little_dearer_than_planned_change_nothing() -> None:
    size, state = 1000, SizeState(1000, 1000)
    size, state = next_size(state, observed(size, (60, 100, 0, 0.1, True)))
    assert size < 1000
    assert next_size(state, observed(size, (60, 0.13 * size, 0, 0.1, True)))[0] == size
    assert next_size(state, observed(size, (60, 0.16 * size, 0, 0.1, True)))[0] < size


@pytest.mark.parametrize("slow_chunks", [0, 10, 100])
@pytest.mark.parametrize("slow_seconds", [0.0007, 0.001])
def test_a_job_whose_memory_stays_with_the_process_may_become_fast_without_a_breach(
    slow_chunks: int, slow_seconds: float
) -> None:
    """An item takes 0.1 MB. What a chunk released is used again, so the next of its size seems to cost nothing."""
    size, state = start(100, None, room(10 * MB, 256 * MB, 0.8))
    pool, largest = 0.0, 0
    for number in range(300):
        seconds = size * (slow_seconds if number < slow_chunks else 0.00001)
        grown = max(0.0, 0.1 * size - pool)
        size, state = next_size(state, observed(size, (10 + pool, 0, grown, seconds, True)))
        pool += grown
        assert 10 + pool < 256
        largest = max(largest, size)
    assert largest > 1500


def test_above_the_warning_threshold_it_grows_back_to_the_declared_size_only() -> None:
    state = replace(start(100, None, 100 * MB)[1], size=5)
    size = state.size
    for _ in range(100):
        size, state = next_size(state, observed(size, (215, 0.0001 * size, 0, 0.0001, True)))
    assert size == 100


def test_a_horse_whose_imports_take_most_of_the_ceiling_is_not_worked_off_item_by_item() -> None:
    assert room(0, 256 * MB, 0.8) == pytest.approx(0.8 * 256 * MB)
    assert room(240 * MB, 256 * MB, 0.8) == 8 * MB
    assert room(300 * MB, 256 * MB, 0.8) == 0
    size, _ = next_size(start(100, None, 8 * MB)[1], observed(100, (240, 1, 0, 0.1, True)))
    assert size == 100


def test_one_dear_chunk_is_remembered_for_a_while_and_then_forgotten() -> None:
    size, state = next_size(start(1000, None, 100 * MB)[1], observed(1000, (60, 100, 0, 0.01, True)))
    assert size < 700
    dear = state.item_bytes
    for _ in range(HALF_LIFE_CHUNKS):
        size, state = next_size(state, observed(size, (60, 0.0001 * size, 0, 0.0001 * size, True)))
    assert state.item_bytes == pytest.approx(dear / 2)
    for _ in range(20 * HALF_LIFE_CHUNKS):
        size, state = next_size(state, observed(size, (60, 0.0001 * size, 0, 0.0001 * size, True)))
    assert size == 10_000


@pytest.mark.parametrize("size", [1, 100])
def test_what_a_chunk_leaves_behind_is_not_the_cost_of_its_items(size: int) -> None:
    state, usage = SizeState(size, size), 60.0
    for _ in range(40):
        seen = observed(size, (usage, 0.001 * size, 1.0, 0.0001 * size, True))
        size, state = next_size(state, seen)
        usage += 1.0
        assert state.item_bytes == pytest.approx(0.001 * MB, rel=0.01)
    assert size > 1000


def test_after_a_breach_cheap_chunks_do_not_bring_the_size_back_at_once() -> None:
    state = replace(start(1000, None, 140 * MB)[1], floor_bytes=1)
    size, state = resumed(after_breach(state, 1000)[1], 140 * MB)
    assert state.floor_bytes is None
    assert 400 < size <= 500
    for _ in range(5):
        size, state = next_size(state, observed(size, (60, 0.01, 0, 0.1, True)))
        assert size < 520


def test_a_chunk_shrinks_as_a_leak_takes_its_room() -> None:
    size, state = 1000, SizeState(1000, 1000)
    seen_sizes = []
    for used in range(60, 256, 4):
        size, state = next_size(state, observed(size, (used, 0.05 * size, 4, 0.1, True)))
        seen_sizes.append(size)
    assert seen_sizes == sorted(seen_sizes, reverse=True)
    assert seen_sizes[0] > 500
    assert seen_sizes[-1] < 50


# Simulated jobs


@pytest.fixture(scope="module")
def jobs() -> dict[str, SimulatedJob]:
    return {job.name: job for job in catalogue(items=50_000)}


@pytest.fixture(scope="module")
def adaptive(jobs: dict[str, SimulatedJob]) -> dict[tuple[str, int], Run]:
    return {(name, ceiling): run(job, ceiling) for name, job in jobs.items() for ceiling in CEILINGS_MB}


def test_every_item_is_done_once(jobs: dict[str, SimulatedJob], adaptive: dict[tuple[str, int], Run]) -> None:
    for (name, _), done in adaptive.items():
        assert sum(step.items for step in done.steps if not step.breached) == len(jobs[name].item_bytes)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("ceiling_mb", CEILINGS_MB)
def test_jobs_that_can_be_foreseen_never_breach(ceiling_mb: int, seed: int) -> None:
    for job in catalogue(items=20_000, seed=seed):
        if job.name in ("constant", "tiny items", "growing", "lognormal", "bimodal", "allocator keeps"):
            assert run(job, ceiling_mb).breaches == 0, job.name


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ceiling_mb", CEILINGS_MB)
def test_a_heavy_tail_breaches_at_most_once(ceiling_mb: int, seed: int) -> None:
    [pareto] = [job for job in catalogue(items=20_000, seed=seed) if job.name == "pareto"]
    assert run(pareto, ceiling_mb).breaches <= 1


def test_a_leak_breaches_no_more_often_than_it_must(adaptive: dict[tuple[str, int], Run]) -> None:
    for ceiling in CEILINGS_MB:
        done = adaptive["leak an item", ceiling]
        leaked = done.job.leak_bytes_per_item * len(done.job.item_bytes)
        assert done.breaches == leaked // ((ceiling - BASELINE_MB) * MB)


def test_a_leak_a_chunk_does_not_drive_chunks_down_to_one_item(adaptive: dict[tuple[str, int], Run]) -> None:
    for ceiling in CEILINGS_MB[1:]:
        done = adaptive["leak a chunk", ceiling]
        assert done.breaches == 0
        assert min(step.items for step in done.steps[:-1]) >= 100


def test_nobody_breaches_twice_in_a_row_at_the_same_size(adaptive: dict[tuple[str, int], Run]) -> None:
    for done in adaptive.values():
        for before, after in zip(done.steps, done.steps[1:], strict=False):
            if before.breached and before.items > 1:
                assert after.items <= before.items // 2


def test_it_comes_near_the_best_fixed_size_of_each_job_and_no_fixed_size_does_for_all(
    jobs: dict[str, SimulatedJob], adaptive: dict[tuple[str, int], Run]
) -> None:
    slower: dict[str | int, list[float]] = {"adaptive": [], **{size: [] for size in FIXED}}
    breaches = dict.fromkeys(slower, 0)
    for (name, ceiling), done in adaptive.items():
        each: dict[str | int, Run] = {
            "adaptive": done,
            **{size: run(jobs[name], ceiling, size, adaptive=False) for size in FIXED},
        }
        best = min(1 + each[size].overhead for size in FIXED)
        for how, its in each.items():
            slower[how].append((1 + its.overhead) / best)
            breaches[how] += its.breaches
    assert max(slower["adaptive"]) < 1.2
    assert math.fsum(slower["adaptive"]) / len(adaptive) < 1.03
    for size in FIXED:
        assert max(slower[size]) > 1.5
        assert breaches[size] > 1.5 * breaches["adaptive"]


@pytest.mark.parametrize("declared", [1, 10, 1000, 10_000])
def test_where_it_starts_hardly_matters(jobs: dict[str, SimulatedJob], declared: int) -> None:
    for name in ("constant", "lognormal", "pareto", "growing"):
        assert run(jobs[name], 256, declared).overhead < 0.03


# The script


def test_the_script_prints_a_table_and_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    drawing = tmp_path / "chunk_size.svg"
    done = CliRunner().invoke(main, ["--items", "2000", "--output", str(drawing)])
    assert done.exit_code == 0, done.output
    assert "heavy blocks" in done.output
    assert "<svg" in drawing.read_text()


def test_without_the_plotting_library_the_table_is_there_and_one_line_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(main, ["--items", "2000", "--output", str(tmp_path / "chunk_size.svg")])
    assert done.exit_code == 1
    assert "heavy blocks" in done.output
    assert done.stderr == "Error: drawing needs matplotlib: pip install 'rqmem[plot]'\n"


def test_a_file_it_cannot_draw_is_refused_before_anything_runs() -> None:
    done = CliRunner().invoke(main, ["--output", "chunk_size.pdf"])
    assert done.exit_code == 2
    assert "ends neither in .svg nor in .png" in done.output
