"""Finished jobs on the page: what Redis does not have yet is there as it was written, whatever came before."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from rqmem.worker.finished_jobs import RESULT_BYTES, ROOM, FinishedJob, FinishedJobs

# Sizes of results (None: the job returned None), and -1: Redis has all of them by now.
steps = st.lists(st.none() | st.integers(-1, 300) | st.sampled_from([5_000, 30_000, RESULT_BYTES, RESULT_BYTES + 1]))


def job(number: int, size: int | None) -> FinishedJob:
    result = None if size is None else bytes([number % 256]) * size
    return FinishedJob(2 * number, 1.5, 2.5, 500, 3, b"job-%d" % number, b"made", b"run-%d" % number, result)


@given(steps)
@example([30_000, 30_000, -1, None, 30_000])
def test_what_is_not_committed_can_be_read(sizes: list[int | None]) -> None:
    ring, waiting = FinishedJobs(), []
    for number, size in enumerate(sizes):
        if size == -1 or len(waiting) == ROOM - 1:
            ring.committed, waiting = ring.count, []
        if size == -1:
            continue
        added = ring.add(job(number, size))
        assert added or sum(len(each.result or b"") for each in waiting) + (size or 0) > RESULT_BYTES
        if added:
            waiting.append(job(number, size))
        assert ring.uncommitted() == waiting
        assert ring.last() == waiting[-1] if waiting else True


def test_a_result_larger_than_the_page_is_refused_and_harms_none() -> None:
    ring = FinishedJobs()
    assert ring.add(job(1, 10)) and not ring.add(job(2, RESULT_BYTES)) and ring.add(job(3, None))
    assert ring.uncommitted() == [job(1, 10), job(3, None)]
