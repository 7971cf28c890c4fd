"""The time that a page is about, as its URL says (``?window=24h``), and what happened in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rqmem.dashboard.state import state
from rqmem.errors import ConfigError
from rqmem.observe.period import PeriodReport
from rqmem.observe.period_read import read_trends
from rqmem.store.history.history_records import Tally
from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from rqmem.values import dataclass


@dataclass(frozen=True)
class Window:
    """A span of time until now. ``by_day``: it has days, else hours."""

    name: str
    words: str
    seconds: float
    by_day: bool = False


_ALL = (
    Window("1h", "last hour", HOUR_SECONDS),
    Window("24h", "last 24 hours", DAY_SECONDS),
    Window("7d", "last 7 days", 7 * DAY_SECONDS, by_day=True),
    Window("30d", "last 30 days", 30 * DAY_SECONDS, by_day=True),
)
WINDOWS = {each.name: each for each in _ALL}


def chosen(name: str, otherwise: str = "24h") -> Window:
    """The window of that name; another name is taken for the usual one."""
    return WINDOWS.get(name, WINDOWS[otherwise])


OUTCOMES: dict[str, Callable[[Tally], float]] = {
    "": lambda tally: tally.runs,
    "failed": lambda tally: tally.failed,
    "breached": lambda tally: tally.breached,
    "leaks": lambda tally: tally.leaks,
    "split": lambda tally: tally.splits,
}
"""What a job type must have had in the window."""


def read_types(window: Window, now: float, named: str = "", outcome: str = "") -> PeriodReport:
    """The job types with a run in the window that have ``named`` in their name, and that outcome.

    Raises `ConfigError` for an outcome that is not one of `OUTCOMES`.
    """
    if outcome not in OUTCOMES:
        raise ConfigError(f"outcome is {outcome!r}: give one of {', '.join(filter(None, OUTCOMES))}")
    since, has = now - window.seconds, OUTCOMES[outcome]
    report = read_trends(state().connection, state().closed, state().where, since, now, compared=False)
    wanted = named.strip().lower()
    return replace(report, types=[each for each in report.types if has(each.tally) and wanted in each.job_type.lower()])
