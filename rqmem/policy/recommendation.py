"""Which ceiling, chunk size and split threshold to recommend for a job type, by what it used. Pure.

The ceiling is that of the Kubernetes vertical autoscaler (its recommender's flags and ``aggregations_config.go``): the
highest peak of each day in a histogram with old days worth less, a high percentile of it, and 15 % above; a run that
was stopped counts as 20 % more than it had, at least 100 MB, since nobody knows how much more it needed; and an
interval that narrows as the history grows. What differs, and why:

- The percentile is 0.95, the autoscaler's upper bound: its target is a request, but a job above its ceiling is stopped.
- A day's weight is halved in four days, not in one: what happens once a week is not forgotten within the week.
- Nine of ten runs stay below the warning threshold, which the autoscaler does not know: above it each checkpoint
  collects garbage and alerts are raised.
- Chunks fill the room they are given (`rqmem.policy.chunk_size`), so their peaks say little about what they need: the
  ceiling is not lowered to where they could not last as long as they do now, or a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from rqmem.policy import chunk_size, escalation
from rqmem.policy.histogram import bucket, percentile, summed, upper_end
from rqmem.units import MB, show_mb
from rqmem.values import dataclass, field

MARGIN = 1.15
FRACTION = 0.95
HALF_LIFE_DAYS = 4.0
BUMP_RATIO, BUMP_MB = 1.2, 100.0
USUAL_FRACTION = 0.9
COST_FRACTION = 0.9  # of the costs per item, also for the first chunk of a run
FEWEST_RUNS = 20
RUNS_A_DAY = 24  # with fewer, a day of history counts as a part of one
STEP_MB = 4
_LEAST_KNOWN_DAYS = 1 / RUNS_A_DAY

Confidence = Literal["low", "fair", "high"]


@dataclass(frozen=True)
class Day:
    """Runs of one day, or a part of one. ``peaks``: a histogram (`rqmem.policy.histogram`) of MB; ``breaches``: those
    of them that were stopped; ``age_days``: of its middle."""

    age_days: float
    peaks: Mapping[int, float]
    breaches: float = 0.0

    @property
    def runs(self) -> float:
        return sum(self.peaks.values())

    @property
    def weight(self) -> float:
        """What a run of this day counts; one of now counts 1."""
        return 0.5 ** (max(0.0, self.age_days) / HALF_LIFE_DAYS)


@dataclass(frozen=True)
class TypeHistory:
    """What is known of a job type.

    Attributes:
        days: in any order.
        history_days: since its first run that is known.
        limit_mb, declared_mb: the ceiling it has now, and what its code declares; None: not known, or nothing.
        initial_mb: usage before it begins, with what its horse has imported.
        costs: a histogram of KB per item, with old runs worth less.
        seconds_per_item: on average; None: it has no items.
        largest_chunk: items of the largest chunk lately; 0: it has no chunks.
        needed: runs by the ceiling in MB that they needed, of a type that escalates.
    """

    days: Sequence[Day]
    history_days: float
    limit_mb: float | None = None
    initial_mb: float = 0.0
    costs: Mapping[int, float] = field(default_factory=dict)
    seconds_per_item: float | None = None
    largest_chunk: int = 0
    declared_mb: float | None = None
    needed: Mapping[float, float] = field(default_factory=dict)

    @property
    def runs(self) -> float:
        return sum(day.runs for day in self.days)

    @property
    def breaches(self) -> float:
        return sum(day.breaches for day in self.days)

    @property
    def known_days(self) -> float:
        """Days of history; one with few runs counts as a part of a day."""
        return min(self.history_days, self.runs / RUNS_A_DAY)

    @property
    def confidence(self) -> Confidence:
        return "low" if self.known_days < 1 else "fair" if self.known_days < 7 else "high"


@dataclass(frozen=True)
class Recommendation:
    """What is recommended for a job type, and why. Sizes in MB.

    Attributes:
        ceiling_mb: recommended; the truth lies between ``lowest_mb`` and ``highest_mb``, by the history.
        chunk_size: items per chunk to begin with; None: it has no chunks.
        split_above_items: how many items at once fit below the warning threshold; None: an item's cost is not known.
        confidence: ``low``: less than a day's worth of runs; ``high``: more than a week's. ``history_days``: in days.
        breaches: that the history has; ``breaches_avoided``: of those, the ones whose estimate is below the new
            ceiling; ``breaches_added``: runs that went well above it.
        given_back_mb: by how much the ceiling comes down (up, where negative); None: the present one is not known.
        evidence: why, a sentence each.
    """

    ceiling_mb: int
    lowest_mb: int
    highest_mb: int
    chunk_size: int | None
    split_above_items: int | None
    confidence: Confidence
    history_days: float
    runs: int
    breaches: int
    breaches_avoided: int
    breaches_added: int
    given_back_mb: float | None
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class TooLittle:
    """There is no recommendation on so few runs; ``needed`` would do."""

    runs: int
    needed: int = FEWEST_RUNS


def recommend(history: TypeHistory, warning_fraction: float) -> Recommendation | TooLittle:
    """The recommendation for a job type. ``warning_fraction``: MEMORY_WARNING_THRESHOLD.

    Promises (tested): neither one more breach nor one more run above the ceiling, of whatever age, lowers it; after a
    breach today it is above what that run is taken to need.
    """
    if history.runs < FEWEST_RUNS:
        return TooLittle(int(history.runs))
    days = [_Estimates(day) for day in history.days if day.runs]
    tops = summed(({day.top: 1.0}, day.weight) for day in days)
    high_mb = _percentile(tops, FRACTION)
    usual_mb = _percentile(summed((day.peaks, day.weight) for day in days), USUAL_FRACTION)
    by_margin_mb, by_warning_mb = MARGIN * high_mb, usual_mb / warning_fraction
    for_chunks_mb = _for_chunks(history, warning_fraction)
    ceiling_mb = _rounded_up(max(by_margin_mb, by_warning_mb, for_chunks_mb))
    evidence = [
        f"the highest peak of a day, recent days before old ones: {show_mb(high_mb)} MB; {MARGIN - 1:.0%} above it: "
        f"{show_mb(by_margin_mb)} MB"
    ]
    if by_warning_mb > by_margin_mb:
        share = f"{warning_fraction:.0%} of the ceiling, where warnings begin"
        evidence.append(f"nine of ten runs use at most {show_mb(usual_mb)} MB, and are to stay below {share}")
    if history.breaches:
        evidence.append(
            f"runs that were stopped ({history.breaches:,.0f}) are taken to need {BUMP_RATIO - 1:.0%} more than they "
            f"had, at least {show_mb(BUMP_MB)} MB more"
        )
    if (better := escalation.to_declare(history.needed, history.declared_mb)) is not None:
        evidence.append(f"it escalates, and {better.share:.0%} of runs needed {show_mb(better.ceiling_mb)} MB or more")
    if for_chunks_mb > max(by_margin_mb, by_warning_mb):
        evidence.append("chunks fill the room they are given: with less they would be smaller than they are")
    return Recommendation(
        ceiling_mb=ceiling_mb,
        lowest_mb=min(ceiling_mb, _rounded_up(MARGIN * _percentile(tops, 0.5))),
        highest_mb=_rounded_up(ceiling_mb * (1 + 1 / max(history.known_days, _LEAST_KNOWN_DAYS))),
        chunk_size=_chunk_size(history, ceiling_mb, warning_fraction),
        split_above_items=_split_above(history, ceiling_mb, warning_fraction),
        confidence=history.confidence,
        history_days=round(history.history_days, 2),
        runs=int(history.runs),
        breaches=int(history.breaches),
        breaches_avoided=int(sum(day.stopped_within(ceiling_mb) for day in days)),
        breaches_added=int(sum(day.went_well_above(ceiling_mb) for day in days)),
        given_back_mb=None if history.limit_mb is None else round(history.limit_mb - ceiling_mb, 1),
        evidence=tuple(evidence),
    )


def first_chunk_size(kb_per_item: float, seconds_per_item: float | None, room_bytes: float, at_least: int = 1) -> int:
    """How many items to recommend for the first chunk, in that room (`rqmem.policy.chunk_size.room`).

    As many as are planned for it, and no more than take `rqmem.policy.chunk_size.TARGET_SECONDS`; time alone brings it
    no lower than ``at_least``. What `rqmem.policy.chunk_size.start` does with a declared size is to lower it.
    """
    fitting = chunk_size.PLANNED * room_bytes / max(1.0, 1024 * kb_per_item * chunk_size.MARGIN)
    timely = chunk_size.TARGET_SECONDS / seconds_per_item if seconds_per_item else math.inf
    return max(1, int(min(fitting, max(timely, at_least))))


class _Estimates:
    """What the runs of a day are taken to have needed.

    Those that were stopped are the highest: they went above their ceiling, and the others did not.
    """

    def __init__(self, day: Day) -> None:
        self.weight = day.weight
        self._well: dict[int, float] = {}
        self._stopped: dict[int, float] = {}
        left = day.breaches
        for number in sorted(day.peaks, reverse=True):
            stopped = min(left, day.peaks[number])
            left -= stopped
            if stopped:
                needed_mb = max(BUMP_RATIO * upper_end(number), upper_end(number) + BUMP_MB)
                self._stopped[bucket(needed_mb)] = self._stopped.get(bucket(needed_mb), 0.0) + stopped
            if day.peaks[number] > stopped:
                self._well[number] = day.peaks[number] - stopped
        self.peaks = summed([(self._well, 1.0), (self._stopped, 1.0)])
        self.top = max(self.peaks)

    def stopped_within(self, ceiling_mb: float) -> float:
        """Of those that were stopped, the ones taken to need no more than this."""
        return sum(count for number, count in self._stopped.items() if upper_end(number) <= ceiling_mb)

    def went_well_above(self, ceiling_mb: float) -> float:
        """Of those that were not, the ones that surely used more than this: their bucket begins above it."""
        return sum(count for number, count in self._well.items() if upper_end(number - 1) >= ceiling_mb)


def _percentile(histogram: Mapping[int, float], fraction: float) -> float:
    found = percentile(histogram, fraction)
    assert found is not None  # there are runs
    return found


def _kb_per_item(history: TypeHistory) -> float | None:
    """None where it has no items, or they cost nothing that can be measured."""
    cost = percentile(history.costs, COST_FRACTION)
    return cost if cost is not None and cost > upper_end(0) else None


def _for_chunks(history: TypeHistory, warning_fraction: float) -> float:
    """MB that chunks as large as now need, or of a second if that is less, planned as usual; never above the ceiling
    it has now."""
    cost = _kb_per_item(history)
    if cost is None or history.limit_mb is None or not history.largest_chunk:
        return 0.0
    timely = chunk_size.TARGET_SECONDS / history.seconds_per_item if history.seconds_per_item else math.inf
    room_mb = min(history.largest_chunk, timely) * cost / 1024 * chunk_size.MARGIN / chunk_size.PLANNED
    return min(history.limit_mb, (history.initial_mb + room_mb) / warning_fraction)


def _chunk_size(history: TypeHistory, ceiling_mb: float, warning_fraction: float) -> int | None:
    cost = _kb_per_item(history)
    if cost is None or not history.largest_chunk:
        return None
    room = chunk_size.room(history.initial_mb * MB, ceiling_mb * MB, warning_fraction)
    return _two_digits(first_chunk_size(cost, history.seconds_per_item, room, history.largest_chunk))


def _split_above(history: TypeHistory, ceiling_mb: float, warning_fraction: float) -> int | None:
    """How many items at once are below the warning threshold, as in `rqmem.policy.splitting`."""
    cost = _kb_per_item(history)
    if cost is None:
        return None
    return _two_digits(max(1, int((warning_fraction * ceiling_mb - history.initial_mb) * 1024 / cost)))


def _two_digits(number: int) -> int:
    """Rounded down, for people: 4,321 is 4,300."""
    step = 10 ** max(0, len(str(number)) - 2)
    return number // step * step


def _rounded_up(size_mb: float) -> int:
    return STEP_MB * math.ceil(size_mb / STEP_MB - 1e-9)
