"""How far a job that has split is: figures out of its run."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rqmem.job.progress import of_split
from rqmem.observe.job import Case
from rqmem.show.job_text import header
from rqmem.store.execution_records import RunRecord, SplitRecord

HALF = SplitRecord(
    sealed=True, total=10, ended=5, failed=1, items=40, peak_mb=90, started_at=100, reported=False, ended_at=150
)


def at(now: float, **changes: object) -> tuple[float | None, float | None]:
    split = SplitRecord(**{**vars(HALF), **changes})
    far = of_split("a", RunRecord(split=split), 0, now)
    return far.rate, far.eta_seconds


def test_the_rate_ends_with_the_end_and_begins_again_with_what_runs_once_more() -> None:
    assert at(200) == (0.05, 100)
    assert at(200, ended=10) == at(10**6, ended=10) == (0.2, 0)
    assert at(10**6, ended=9, started_at=10**6 - 10, ended_before=9) == (None, None), "none of them has ended"
    again = {"ended": 10, "started_at": 1000, "ended_before": 9}
    assert at(10**6, **again, ended_at=1010) == (0.1, 0)


def test_a_parent_counts_its_own_items_and_peak_too() -> None:
    run = RunRecord(split=HALF, items={0: 3, 1: 4}, items_unsaved=5, peak_mb=120)
    far = of_split("a", run, 2, 200)
    assert (far.total, far.done, far.failed, far.running, far.items, far.peak_mb) == (10, 4, 1, 2, 52, 120)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_figures_never_contradict_each_other(ended: int, before: int, started: float, now: float, sealed: bool) -> None:
    changes = {"total": 50, "ended": ended, "failed": ended // 2, "started_at": started, "ended_before": before}
    split = SplitRecord(**{**vars(HALF), **changes, "sealed": sealed})
    far = of_split("a", RunRecord(split=split), 0, now)
    assert far.done + far.failed == ended
    assert far.rate is None or far.rate > 0
    assert far.eta_seconds is None or far.eta_seconds >= 0
    assert (far.total is None) is not sealed


def test_children_that_split_stand_below_their_parent() -> None:
    run = RunRecord(split=HALF)
    leaf = of_split("a-child-7-child-0", run, 0, 200)
    middle = replace(of_split("a-child-7", run, 1, 200), splits=(leaf,))
    top = replace(of_split("a", run, 0, 200), splits=(middle,), more=3)
    lines = [
        line
        for line in header(Case("a", 200, children=top), 200, lambda text, mood: text)
        if "child" in line or "…" in line
    ]
    figures = "4 of 10 done, 1 failed, {} running; 40 items; 0.05 children a second; 100 s left"
    assert [line[2:] for line in lines] == [
        f"children   {figures.format(0)}",
        f"             child-7 {figures.format(1)}",
        f"               child-0 {figures.format(0)}",
        "             … and 3 more that split",
    ]
