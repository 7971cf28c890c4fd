"""What others left in a warm horse is not charged to a job: it begins in a new one, or runs once more there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rq import Queue, Retry
from rq.job import JobStatus

from rqmem.policy import recycling
from rqmem.policy.needs import Known, Needs
from rqmem.policy.recycling import AfterJob, Fit, HorseState
from rqmem.store import execution_reader
from rqmem.units import MB
from tests import crowded_jobs
from tests.conftest import WorkOff

AGAIN = re.compile(r"others had left (\d+)[\d.]* MB in its horse: it runs once more, in a new horse")


@pytest.fixture
def queue(connection: Any, request: pytest.FixtureRequest) -> Queue:
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for each job has nothing of others")
    return Queue("jobs", connection=connection)


def no_breaches(queue: Queue) -> bool:
    return not list(queue.connection.scan_iter("rqmem:breaches:*"))


@pytest.mark.parametrize("worker_mb", ["1000", "150"])
@pytest.mark.parametrize("work", [crowded_jobs.needs_of_150, crowded_jobs.needs])
def test_a_job_whose_need_is_not_known_does_not_begin_among_what_others_left(
    queue: Queue, work_off: WorkOff, worker_mb: str, work: Callable[..., int]
) -> None:
    queue.enqueue(crowded_jobs.leaves, 70)
    jobs = [queue.enqueue(work, 70) for _ in range(3)]
    log = work_off("jobs", "--memory", worker_mb)
    assert all(job.get_status() == JobStatus.FINISHED for job in jobs), log
    assert int(queue.connection.get("begun")) == 3, "no job began twice"
    assert no_breaches(queue), log


def known_to_need(queue: Queue, mb: int, work: Any = crowded_jobs.needs_of_150) -> None:
    """In a horse of its own, so that the worker knows."""
    queue.enqueue(work, mb)


def test_a_known_need_decides_against_the_jobs_own_ceiling(queue: Queue, work_off: WorkOff) -> None:
    known_to_need(queue, 70)
    first = queue.enqueue(crowded_jobs.leaves, 60)
    same = queue.enqueue(crowded_jobs.needs_of_150, 70)
    log = work_off("jobs", "--memory", "1000")
    assert same.return_value() not in (None, first.return_value()), log
    assert re.search(
        r"others had left [56]\d[\d.]* MB in it, and with the [67]\d[\d.]* MB that such a job needs", log
    ), log
    assert no_breaches(queue)


def test_a_job_that_is_known_to_fit_beside_what_others_left_stays_in_their_horse(
    queue: Queue, work_off: WorkOff
) -> None:
    known_to_need(queue, 20)
    first = queue.enqueue(crowded_jobs.leaves, 60)
    same = queue.enqueue(crowded_jobs.needs_of_150, 20)
    log = work_off("jobs", "--memory", "1000")
    assert same.return_value() == first.return_value(), log


@pytest.mark.parametrize("retry", [None, Retry(max=2)])
@pytest.mark.parametrize("work", [crowded_jobs.needs_of_150, crowded_jobs.needs])
def test_a_breach_among_what_others_left_runs_once_more_and_costs_no_retry(
    queue: Queue, work_off: WorkOff, work: Callable[..., int], retry: Retry | None
) -> None:
    known_to_need(queue, 5, work)
    first = queue.enqueue(crowded_jobs.leaves, 70)
    job = queue.enqueue(work, 110, retry=retry)
    log = work_off("jobs", "--memory", "150")
    assert job.return_value() not in (None, first.return_value()), log
    job.refresh()
    assert job.retries_left == (2 if retry else None)
    assert len(job.results()) == 1
    assert int(queue.connection.get("begun")) == 3
    [left_mb] = AGAIN.findall(log)
    assert 66 <= int(left_mb) <= 74
    assert no_breaches(queue)
    assert not queue.connection.hlen("rqmem:running")


def test_the_second_breach_is_the_jobs_own(queue: Queue, work_off: WorkOff) -> None:
    known_to_need(queue, 5)
    queue.enqueue(crowded_jobs.leaves, 70)
    job = queue.enqueue(crowded_jobs.needs_of_150, 180)
    log = work_off("jobs", "--memory", "1000")
    assert job.get_status() == JobStatus.FAILED
    assert len(AGAIN.findall(log)) == 1
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert "MemoryLimitExceeded" in (job.latest_result().exc_string or "")
    assert breach.limit_mb == 150
    assert int(queue.connection.get("begun")) == 3


def test_one_that_grows_without_end_begins_twice_at_most(queue: Queue, work_off: WorkOff) -> None:
    known_to_need(queue, 5)
    queue.enqueue(crowded_jobs.leaves, 70)
    job = queue.enqueue(crowded_jobs.grows_without_end)
    log = work_off("jobs", "--memory", "1000")
    assert job.get_status() == JobStatus.FAILED
    assert int(queue.connection.get("begun")) <= 3, log


def test_a_job_in_chunks_goes_on_from_its_cursor_with_its_chunk_size_and_no_resume(
    queue: Queue, work_off: WorkOff
) -> None:
    crowded_jobs.InChunks.enqueue(queue, [1, 1, 1, 1])
    queue.enqueue(crowded_jobs.leaves, 70)
    job = crowded_jobs.InChunks.enqueue(queue, [1, 1, 1, 1, 25, 25, 25, 25])
    log = work_off("jobs", "--memory", "1000")
    assert job.return_value() == [[4], [4]], log
    chunks = [text.decode() for text in queue.connection.lrange("chunks", 0, -1)]
    assert chunks[1:] == ["[1, 1, 1, 1]", "[25, 25, 25, 25]", "[25, 25, 25, 25]"]
    assert execution_reader.run(queue.connection, job.id).resumes == 0
    assert len(AGAIN.findall(log)) == 1
    assert no_breaches(queue)


def test_a_plain_job_that_calls_a_declared_function_is_not_begun_anew_for_it(queue: Queue, work_off: WorkOff) -> None:
    known_to_need(queue, 5, crowded_jobs.calls_one_of_150)
    queue.enqueue(crowded_jobs.leaves, 70)
    job = queue.enqueue(crowded_jobs.calls_one_of_150, 5)
    log = work_off("jobs", "--memory", "1000")
    assert job.get_status() == JobStatus.FINISHED, log
    assert int(queue.connection.get("outer")) == 2


def test_a_replaced_horse_is_logged_and_counted_after_each_kind_of_end(queue: Queue, work_off: WorkOff) -> None:
    from tests import sample_jobs

    for work in (sample_jobs.own_pid, sample_jobs.grow_lists, sample_jobs.exit_quietly, sample_jobs.own_pid):
        queue.enqueue(work)
    log = work_off("jobs", "--memory", "128")
    reasons = re.findall(r"new horse with fresh memory after [\w.]+ \(\w+\): (.*)", log)
    assert reasons == ["the job reached its ceiling", "it ended under the job"]


# The decisions


sizes = st.integers(0, 300 * MB)
fits = st.builds(Fit, held_bytes=sizes, left_bytes=sizes, need_bytes=st.none() | sizes)


@given(fits, st.integers(1 * MB, 600 * MB))
def test_a_job_stays_where_others_left_much_only_if_it_is_known_to_fit(before: Fit, ceiling: int) -> None:
    if not recycling.crowded(before, ceiling) and before.left_bytes > recycling.CLEAN_FRACTION * ceiling:
        assert before.need_bytes is not None
        assert before.held_bytes + before.need_bytes <= ceiling
        assert before.left_bytes <= ceiling / 2


@given(st.integers(1, 600 * MB), st.integers(0, 600 * MB))
def test_a_breach_in_a_new_horse_is_never_the_horses_fault(ceiling: int, used: int) -> None:
    assert not recycling.is_horses_fault(0, used, ceiling)


HONEST = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 120)), min_size=1, max_size=20)


@given(HONEST, st.randoms())
def test_honest_workloads_at_their_fresh_peak_and_a_tenth_are_never_stopped(
    workloads: list[tuple[int, int]], chance: Any
) -> None:
    """Each imports so many MB once and uses so many at a time; all run in turns in one warm horse, again and again."""
    idle, needs, state, imported = 10 * MB, Needs(), HorseState(), set[str]()
    peaks = [idle + (imports + uses) * MB for imports, uses in workloads]
    for _ in range(60):
        number = chance.randrange(len(workloads))
        name, (imports, uses) = str(number), workloads[number]
        ceiling = int(1.1 * peaks[number])
        before = recycling.fit(state, name, needs.of(name), idle)
        if state.jobs and recycling.crowded(before, ceiling):
            state, imported = HorseState(), set()
            before = recycling.fit(state, name, needs.of(name), idle)
        grown = (uses if name in imported else imports + uses) * MB
        assert before.held_bytes + grown <= ceiling
        kept = state.kept_bytes + (0 if name in imported else imports * MB)
        needs.ran(name, grown, ceiling, first=not state.has_run(name))
        _, state = recycling.decide(state, AfterJob(name, kept), ceiling, 0)
        imported.add(name)


@given(st.lists(st.integers(0, 300 * MB), min_size=1, max_size=100))
def test_a_need_covers_the_last_run_and_no_more_than_was_ever_seen(grown: list[int]) -> None:
    needs = Needs()
    for each in grown:
        needs.ran("a", each, 0, first=False)
        known = needs.of("a").again_bytes
        assert known is not None
        assert each <= known <= max(grown)


def test_a_large_run_is_forgotten_after_many_small_ones() -> None:
    needs = Needs()
    for each in [200 * MB, *[10 * MB] * 60]:
        needs.ran("a", each, 0, first=False)
    assert (needs.of("a").again_bytes or 0) < 20 * MB


def test_what_is_known_is_bounded() -> None:
    needs = Needs()
    for number in range(5000):
        needs.ran(str(number), MB, 0, first=True)
    assert needs.of("4999") == Known(first_bytes=MB)
    assert needs.of("0") == Known()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 40)), max_size=60))
def test_threads_of_first_runs_are_the_baseline(runs: list[tuple[str, int]]) -> None:
    state = HorseState()
    most = 1
    for job, threads in runs:
        first = not state.has_run(job)
        reason, state = recycling.decide(state, AfterJob(job, 0, threads), 256 * MB, 0)
        assert bool(reason) == (not first and threads > most)
        most = max(most, threads)


def test_a_type_that_leaves_a_thread_more_each_time_never_has_many() -> None:
    """And one that begins its threads late, as a pool does, costs a horse once and not each time."""
    needs, state, replaced, threads = Needs(), HorseState(), 0, 1
    for _ in range(300):
        threads += 1
        reason, state = recycling.decide(state, AfterJob("a", 0, threads), 256 * MB, 0, needs.of("a").threads_allowed)
        needs.left_threads("a", state.threads_by.get("a", 0))
        assert threads <= 12
        if reason:
            state, replaced, threads = HorseState(), replaced + 1, 1
    assert replaced > 50
    needs, state, replaced, threads = Needs(), HorseState(), 0, 1
    for number in range(300):
        threads = max(threads, 3 if number % 50 > 20 else 1)
        reason, state = recycling.decide(state, AfterJob("a", 0, threads), 256 * MB, 0, needs.of("a").threads_allowed)
        needs.left_threads("a", state.threads_by.get("a", 0))
        if reason or number % 50 == 49:
            state, replaced, threads = HorseState(), replaced + bool(reason), 1
    assert replaced == 1
