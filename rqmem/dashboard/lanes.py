"""When a job ran, as parallel lanes: its executions with what happened in them, then its children. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rqmem import events
from rqmem.dashboard.child_rows import Child
from rqmem.observe.job import Case
from rqmem.store.history.history_records import OK
from rqmem.text import counted
from rqmem.values import dataclass

Mark = Literal["chunk", "collection", "breach"]

_MARKS: dict[type[events.Event], Mark] = {
    events.ChunkDone: "chunk", events.Collection: "collection", events.Breach: "breach",
}  # fmt: skip
_MOST_CHILDREN = 12
_CLOCKS_APART_SECONDS = 1.0  # the worker reports a breach, and the horse the end of its execution


@dataclass(frozen=True)
class Lane:
    """An execution, or a child. Times in epoch seconds.

    Attributes:
        job_id: of a child; empty: it is an execution of the job itself.
        colour: a class of app.css.
        marks: what happened in it, and when.
    """

    name: str
    begin: float
    end: float
    colour: str
    marks: tuple[tuple[float, Mark], ...] = ()
    job_id: str = ""

    @property
    def text(self) -> str:
        kinds = [mark for _, mark in self.marks]
        return ", ".join(counted(kinds.count(mark), mark) for mark in dict.fromkeys(kinds))


def lanes(case: Case, children: Sequence[Child]) -> list[Lane]:
    """Executions, oldest first; then children that have started, in the order in which they did."""
    return [*_executions(case), *_children(case, children)]


def _executions(case: Case) -> Iterator[Lane]:
    number = 0
    for number, run in enumerate(case.runs, 1):
        colour = "good" if run.outcome == OK else "warning" if run.resumed else "bad"
        begin = run.ended_at - run.seconds
        yield Lane(f"execution {number}", begin, run.ended_at, colour, _marks(case, begin, run.ended_at))
    if case.live is not None:
        begin = case.live.started_at
        yield Lane(f"execution {number + 1}", begin, case.now, "accent", _marks(case, begin, case.now))


def _marks(case: Case, begin: float, end: float) -> tuple[tuple[float, Mark], ...]:
    within = (told for told in case.told if begin <= told.at <= end + _CLOCKS_APART_SECONDS)
    return tuple((min(told.at, end), _MARKS[type(told.event)]) for told in within if type(told.event) in _MARKS)


def _children(case: Case, children: Sequence[Child]) -> list[Lane]:
    started = [(each, each.row) for each in children if each.row is not None and each.row.started_at is not None]
    found = [
        Lane(
            f"child {each.number}", row.started_at or 0.0, row.ended_at or case.now,
            "bad" if each.failed else "good" if each.outcome == OK else "accent", job_id=each.job_id,
        )
        for each, row in started
    ]  # fmt: skip
    return sorted(found, key=lambda lane: lane.begin)[:_MOST_CHILDREN]
