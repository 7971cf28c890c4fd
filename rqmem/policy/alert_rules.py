"""What is worth an alert: rules over events, and over readings of the running job. Pure: no clock, no I/O.

Some rules are about something that happened (`of_event`), others about something that lasts (`judge`). The end of what
lasts is reported too. Who gets an alert, and how often, is decided where it is written
(`rqmem.store.alerts.alert_writer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rqmem import events, words
from rqmem.config.settings import Config
from rqmem.text import printable
from rqmem.units import show_mb
from rqmem.values import dataclass

if TYPE_CHECKING:
    from rqmem.events import Event

USAGE_HYSTERESIS = 0.05
"""Its alert ends when usage falls below the threshold by this fraction of the ceiling."""

WINDOW_SECONDS = 60.0
_ENDED_FRACTION = 0.5  # of its threshold: below this, growth has ended


@dataclass(frozen=True)
class Rule:
    """``can_end``: it is about something lasting, whose end is reported. ``grave``: work was lost or may be lost."""

    name: str
    can_end: bool = False
    grave: bool = False


USAGE = Rule("memory-usage", can_end=True)
GROWTH = Rule("memory-growth", can_end=True)
CEILING = Rule("ceiling-exceeded", grave=True)
COLLECTIONS = Rule("many-collections")
SPLIT = Rule("job-split")
WORKER_LOST = Rule("worker-lost", grave=True)
WORKER_FULL = Rule("worker-full")
BUDGET_SPENT = Rule("resume-budget-spent", grave=True)
LEAK = Rule("memory-leak")
POOL_PAUSED = Rule("pool-paused")
EVICTED = Rule("job-evicted")

RULES = {
    rule.name: rule
    for rule in (
        *(USAGE, GROWTH, CEILING, COLLECTIONS, SPLIT, WORKER_LOST, WORKER_FULL, BUDGET_SPENT, LEAK),
        *(POOL_PAUSED, EVICTED),
    )
}


@dataclass(frozen=True)
class Condition:
    """A rule that applies, or no longer applies; ``text`` is one line for people, without the job's name."""

    rule: str
    job: str
    job_id: str
    queue: str
    text: str


# What happened


_OF_EVENTS: dict[type[Event], Rule] = {
    events.Breach: CEILING,
    events.Split: SPLIT,
    events.WorkerLost: WORKER_LOST,
    events.WorkerFull: WORKER_FULL,
    events.GaveUp: BUDGET_SPENT,
    events.LeakFound: LEAK,
    events.IntakePaused: POOL_PAUSED,
    events.Evicted: EVICTED,
}


def of_event(event: Event, config: Config) -> Condition | None:
    """What an event is an alert about; None for most events."""
    if isinstance(event, events.Collection) and event.collections == config.alert_collections + 1:  # once in a run
        return _about(event, COLLECTIONS, f"garbage was collected more than {config.alert_collections} times in a run")
    rule = _OF_EVENTS.get(type(event))
    if rule is None:
        return None
    goes_on = f"; it {event.next}" if isinstance(event, events.Breach) and event.next.startswith("goes on") else ""
    return _about(event, rule, words.short(event) + goes_on)


def _about(event: Event, rule: Rule, text: str) -> Condition:
    return Condition(rule.name, event.job, event.job_id, event.queue, printable(" ".join(text.split())))


# What lasts


@dataclass(frozen=True)
class JobReading:
    """What the running job used at ``at``. Sizes in MB, times in seconds since any one moment.

    ``initial_mb``: what was used when it began, its imports included; None: as much as at the first reading.
    ``known_mb``: what its type is known to need.
    """

    at: float
    job: str
    job_id: str
    queue: str
    started_at: float
    usage_mb: float
    limit_mb: float
    initial_mb: float | None = None
    known_mb: float = 0.0


@dataclass(frozen=True)
class Levels:
    """What `judge` remembers of one worker.

    Attributes:
        execution: the one that its readings are of; None: no job runs.
        window: when and how much in MB, of the last minute, oldest first.
        before_mb: the most it used before that.
        open: what was found and lasts.
    """

    execution: tuple[str, float] | None = None
    window: tuple[tuple[float, float], ...] = ()
    before_mb: float = 0.0
    open: tuple[Condition, ...] = ()


def judge(
    reading: JobReading | None, levels: Levels, config: Config
) -> tuple[list[Condition], list[Condition], Levels]:
    """What has begun with this reading, what has ended, and what to remember. Call it about once a second.

    ``reading`` is None if no job runs: then everything has ended.
    """
    execution = None if reading is None else (reading.job_id, reading.started_at)
    resolved: list[Condition] = []
    if execution != levels.execution:
        resolved = [replace(each, text="its job has ended") for each in levels.open]
        levels = Levels(execution)
    if reading is None:
        return [], resolved, levels
    window, before_mb = _moved(levels, reading)
    risen = rise([(at, max(mb, before_mb, reading.known_mb, reading.initial_mb or 0.0)) for at, mb in window])
    raised: list[Condition] = []
    still: list[Condition] = []
    before = {each.rule: each for each in levels.open}
    for rule, (begun, ended) in ((USAGE, _usage(reading, config)), (GROWTH, _growth(risen, config))):
        found = before.get(rule.name)
        if found is None and begun:
            text = _level_text(rule, reading, risen)
            raised.append(Condition(rule.name, reading.job, reading.job_id, reading.queue, text))
            still.append(raised[-1])
        elif found is not None and ended:
            resolved.append(replace(found, text=_level_text(rule, reading, risen)))
        elif found is not None:
            still.append(found)
    return raised, resolved, Levels(execution, window, before_mb, tuple(still))


def _moved(levels: Levels, reading: JobReading) -> tuple[tuple[tuple[float, float], ...], float]:
    """The window with this reading, and the most that was used before it."""
    window = levels.window
    if window and reading.at <= window[-1][0]:  # the clock was set back
        return ((reading.at, reading.usage_mb),), levels.before_mb
    if not window and reading.initial_mb is not None and reading.started_at < reading.at:
        window = ((reading.started_at, reading.initial_mb),)
    kept = tuple(each for each in window if each[0] >= reading.at - WINDOW_SECONDS)
    before_mb = max([levels.before_mb, *(mb for _, mb in window[: len(window) - len(kept)])])
    return (*kept, (reading.at, reading.usage_mb)), before_mb


def _usage(reading: JobReading, config: Config) -> tuple[bool, bool]:
    if reading.limit_mb <= 0:
        return False, False
    fraction = reading.usage_mb / reading.limit_mb
    return fraction > config.warning_threshold, fraction <= config.warning_threshold - USAGE_HYSTERESIS


@dataclass(frozen=True)
class Rise:
    """From a lowest point to a higher one after it, in MB and seconds."""

    mb: float
    seconds: float


def rise(points: Sequence[tuple[float, float]]) -> Rise:
    """The largest rise between two of these points of (seconds, MB), the earlier of them lower."""
    lowest_at, lowest = points[0]
    found = Rise(0.0, 0.0)
    for at, mb in points:
        if mb <= lowest:
            lowest_at, lowest = at, mb
        elif mb - lowest > found.mb:
            found = Rise(mb - lowest, at - lowest_at)
    return found


def _growth(risen: Rise, config: Config) -> tuple[bool, bool]:
    """Whether growth within a minute is above the threshold, and whether it is clearly below.

    A jump counts as a slope does. What the job may be expected to use is no news: what its type is known to need, and
    what it has used itself before the last minute. So growth is what is above both.
    """
    threshold = config.alert_growth_mb_per_minute
    return risen.mb > threshold, risen.mb <= _ENDED_FRACTION * threshold


def _level_text(rule: Rule, reading: JobReading, risen: Rise) -> str:
    usage = f"{show_mb(reading.usage_mb)} MB of {show_mb(reading.limit_mb)} MB"
    if rule is GROWTH:
        return f"grew by {risen.mb:.0f} MB within {max(1.0, risen.seconds):.0f} s, to {usage}"
    return f"uses {usage} ({100 * reading.usage_mb / reading.limit_mb:.0f} %)"
