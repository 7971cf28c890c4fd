"""All reads of the journal; changes nothing. Connections answer in bytes, as RQ demands.

A journal that another version of rqmem wrote is said (`JournalVersionError`, from `check_version`), not misread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from rqmem.errors import JournalVersionError
from rqmem.events import Breach
from rqmem.policy import histogram
from rqmem.store import codec, keys
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history.history_records import VERSION, Grown, Live, Run, Tally, Told, Totals
from rqmem.store.history.samples import RINGS, Ring, Sample
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT, HOUR_SECONDS, HOURS_KEPT, WEEK_SECONDS, WEEKS_KEPT

if TYPE_CHECKING:
    from redis import Redis


def check_version(connection: Redis) -> None:
    """Raise `JournalVersionError` where the journal is of another version; to be called before any other read."""
    raw = cast("bytes | None", connection.get(keys.VERSION))
    if raw is not None and raw != str(VERSION).encode():
        raise JournalVersionError(
            f"the journal on this Redis has version {raw.decode(errors='replace')}, this rqmem reads {VERSION}"
        )


def workers(connection: Redis, names: Iterable[str]) -> list[Live]:
    """Those of the workers with these names that are rqmem's and live, as they last said; by name."""
    asked = sorted(set(names))
    raw = cast("list[bytes | None]", connection.mget([keys.alive(name) for name in asked])) if asked else []
    return [codec.from_json(Live, text) for text in raw if text is not None and text.startswith(b"{")]


def samples(connection: Redis, worker: str, now: float, ring: Ring = RINGS[0]) -> list[Sample]:
    """A worker's samples of one ring, oldest first."""
    raw = cast("bytes | None", connection.get(keys.samples(worker, ring.step_seconds)))
    return list(ring.unpack(raw or b"", now))


def newest_samples(
    connection: Redis, since: Mapping[str, float], now: float, ring: Ring = RINGS[0]
) -> dict[str, list[Sample]]:
    """Worker -> its samples from the time given for it on, oldest first; only those are sent, in one round trip."""
    slot_bytes = ring.offset(ring.step_seconds)
    ranges: list[tuple[str, int, int]] = []
    for worker, begin in since.items():
        first, last = ring.offset(ring.begin(max(begin, now - ring.seconds))), ring.offset(ring.begin(now))
        if now - begin >= ring.seconds - ring.step_seconds:
            ranges.append((worker, 0, -1))
        elif first <= last:
            ranges.append((worker, first, last + slot_bytes - 1))
        else:
            ranges += [(worker, first, -1), (worker, 0, last + slot_bytes - 1)]
    with connection.pipeline(transaction=False) as pipeline:
        for worker, first, last in ranges:
            pipeline.getrange(keys.samples(worker, ring.step_seconds), first, last)
        answers = cast("list[bytes]", pipeline.execute())
    raw: dict[str, bytes] = {}
    for (worker, _, _), part in zip(ranges, answers, strict=True):
        raw[worker] = raw.get(worker, b"") + part
    return {
        worker: [sample for sample in ring.unpack(raw[worker], now) if sample.at >= ring.begin(begin)]
        for worker, begin in since.items()
    }


def sampled_workers(connection: Redis) -> dict[str, float]:
    """Worker -> when it was last sampled, of all whose samples are kept."""
    return _scores(connection, keys.SAMPLED)


def types(connection: Redis) -> dict[str, float]:
    """Job type -> when last seen, of all that are remembered."""
    return _scores(connection, keys.TYPES)


def stories(connection: Redis) -> dict[str, float]:
    """Job id -> when its story was last written to, of all whose story is kept."""
    return _scores(connection, keys.STORIES)


def runs(connection: Redis, job_type: str) -> list[Run]:
    """The last runs of a job type, newest first."""
    raw = cast("list[bytes]", connection.lrange(keys.runs(job_type), 0, -1))
    return [codec.from_json(Run, text) for text in raw]


def grown(connection: Redis, job_type: str, now: float) -> list[Grown]:
    """Where the runs with the highest peaks of a job type grew, this week's and last week's, highest first."""
    this = int(now // WEEK_SECONDS)
    with connection.pipeline(transaction=False) as pipeline:
        for week in range(this - WEEKS_KEPT + 1, this + 1):
            pipeline.zrange(keys.grew(job_type, week), 0, -1)
        found = [codec.from_json(Grown, text) for texts in pipeline.execute() for text in texts]
    return sorted(found, key=lambda each: -each.peak_mb)


def tallies(
    connection: Redis, job_type: str, since: float, until: float, *, by_day: bool | None = None
) -> list[tuple[float, Tally]]:
    """What happened to a job type from ``since`` until ``until``, by the hour, or beyond two days by the day.

    Each with the time in the middle of its period, oldest first; periods without a run are left out. ``by_day``: by
    the day or by the hour, however long that is.
    """
    hourly = until - since <= HOURS_KEPT * HOUR_SECONDS if by_day is None else not by_day
    period, seconds = ("h", HOUR_SECONDS) if hourly else ("d", DAY_SECONDS)
    numbers = range(int(since // seconds), int(until // seconds) + 1)
    with connection.pipeline(transaction=False) as pipeline:
        for number in numbers:
            pipeline.hgetall(keys.tally(job_type, period, number))
        found = zip(numbers, pipeline.execute(), strict=True)
        return [((number + 0.5) * seconds, codec.from_hash(Tally, raw)) for number, raw in found if raw]


def first_seen(connection: Redis, job_types: Iterable[str], now: float) -> dict[str, float]:
    """Job type -> the beginning of the first hour, or beyond two days day, that something is known of."""
    hours = range(int(now // HOUR_SECONDS) - HOURS_KEPT, int(now // HOUR_SECONDS) + 1)
    days = range(int(now // DAY_SECONDS) - DAYS_KEPT, int(hours[0] * HOUR_SECONDS // DAY_SECONDS) + 1)
    periods = [("d", number, DAY_SECONDS) for number in days] + [("h", number, HOUR_SECONDS) for number in hours]
    asked = [(name, *period) for name in job_types for period in periods]
    with connection.pipeline(transaction=False) as pipeline:
        for name, period, number, _ in asked:
            pipeline.exists(keys.tally(name, period, number))
        answers = cast("list[int]", pipeline.execute())
    found: dict[str, float] = {}
    for (name, _, number, seconds), there in zip(asked, answers, strict=True):
        if there:
            found.setdefault(name, float(number * seconds))
    return found


def hourly(connection: Redis, job_types: Iterable[str], since: float, until: float) -> dict[tuple[str, int], Tally]:
    """Job type and hour, counted from 1970 -> what happened; in one round trip, hours without a run left out."""
    hours = range(int(since // HOUR_SECONDS), int(until // HOUR_SECONDS) + 1)
    asked = [(name, hour) for name in job_types for hour in hours]
    with connection.pipeline(transaction=False) as pipeline:
        for name, hour in asked:
            pipeline.hgetall(keys.tally(name, "h", hour))
        answers = cast("list[dict[bytes, bytes]]", pipeline.execute())
    return {each: codec.from_hash(Tally, raw) for each, raw in zip(asked, answers, strict=True) if raw}


def tally(connection: Redis, job_type: str, since: float, until: float) -> Tally:
    """The same in one sum."""
    total = Tally()
    for _, each in tallies(connection, job_type, since, until):
        total = total.plus(each)
    return total


def last_limits(connection: Redis, job_types: Iterable[str]) -> dict[str, float]:
    """Job type -> the ceiling in MB that its last run had, of those whose last run is remembered."""
    asked = list(job_types)
    with connection.pipeline(transaction=False) as pipeline:
        for name in asked:
            pipeline.lindex(keys.runs(name), 0)
        answers = cast("list[bytes | None]", pipeline.execute())
    return {name: codec.from_json(Run, raw).limit_mb for name, raw in zip(asked, answers, strict=True) if raw}


def totals(connection: Redis, job_types: Iterable[str]) -> dict[str, Totals]:
    """Job type -> what has happened to it since it was first seen, of those that something is kept of."""
    asked = list(job_types)
    with connection.pipeline(transaction=False) as pipeline:
        for name in asked:
            pipeline.hgetall(keys.totals(name))
        answers = cast("list[dict[bytes, bytes]]", pipeline.execute())
    return {name: codec.from_hash(Totals, raw) for name, raw in zip(asked, answers, strict=True) if raw}


def decayed(
    connection: Redis, job_type: str, now: float
) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """A job type's histograms of peak MB, seconds and KB per item over all its time, old runs worth less."""
    hours = tallies(connection, job_type, now - HOURS_KEPT * HOUR_SECONDS + HOUR_SECONDS, now)
    days = tallies(connection, job_type, now - DAYS_KEPT * DAY_SECONDS, now)
    oldest_hour = now - HOURS_KEPT * HOUR_SECONDS
    weighted = [(each, histogram.weight(now - at)) for at, each in hours]
    weighted += [(each, histogram.weight(now - at)) for at, each in days if at + DAY_SECONDS / 2 <= oldest_hour]
    return (
        histogram.summed((each.peaks, factor) for each, factor in weighted),
        histogram.summed((each.durations, factor) for each, factor in weighted),
        histogram.summed((each.costs, factor) for each, factor in weighted),
    )


def story(connection: Redis, job_id: str) -> list[Told]:
    """What is remembered of a job, oldest first; a class of events that this version does not know is left out."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.lrange(keys.story(job_id), 0, -1)
        pipeline.lrange(keys.breaches(job_id), 0, -1)
        lines, texts = pipeline.execute()
    breaches = {each.execution: each for each in (codec.from_json(Breach, text) for text in texts)}
    told = []
    for text in lines:
        fields = json.loads(text)
        refers = "execution" in fields  # rqmem 0.1 wrote the breach itself at first
        event = breaches.get(fields["execution"]) if refers else codec.event_from_values(fields)
        if event is not None:
            told.append(Told(fields["at"], event))
    return sorted(told, key=lambda each: each.at)  # worker and horse tell over two ways


def alerts(connection: Redis, after: str = "-", limit: int = 1000) -> list[Alert]:
    """Alerts after the one with the id ``after`` (``"-"``: from the first kept), oldest first, the last ``limit``."""
    newest = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]", connection.xrevrange(keys.ALERTS, "+", _beyond(after), limit)
    )
    return [Alert.from_entry(entry_id, entry) for entry_id, entry in reversed(newest)]


def next_alerts(connection: Redis, after: str, wait_seconds: float) -> list[Alert]:
    """Alerts after that id, as soon as there are some; an empty list when there were none for so long."""
    streams = connection.xread({keys.ALERTS: after}, block=max(1, int(1000 * wait_seconds)))
    found = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", streams)
    return [Alert.from_entry(entry_id, entry) for _, entries in found for entry_id, entry in entries]


def open_alerts(connection: Redis) -> list[Open]:
    """Alerts that can end and have not, longest first."""
    raw = cast("dict[bytes, bytes]", connection.hgetall(keys.OPEN_ALERTS))
    return sorted((codec.from_json(Open, text) for text in raw.values()), key=lambda each: each.since)


def dropped(connection: Redis) -> dict[str, int]:
    """What the journal did not take, by kind."""
    raw = cast("dict[bytes, bytes]", connection.hgetall(keys.DROPPED))
    return {kind.decode(): int(count) for kind, count in raw.items()}


def size(connection: Redis) -> dict[str, tuple[int, int]]:
    """Kind of key -> how many there are and the bytes they take (``MEMORY USAGE``)."""
    found: dict[str, tuple[int, int]] = {}
    for pattern in keys.JOURNAL_PATTERNS:
        kind = pattern.removeprefix(f"{keys.PREFIX}:").removesuffix(":*")
        names = list(connection.scan_iter(pattern, count=1000))
        with connection.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.memory_usage(name)
            taken = sum(each or 0 for each in pipeline.execute())
        if names:
            count, before = found.get(kind, (0, 0))
            found[kind] = (count + len(names), before + taken)
    return found


def _scores(connection: Redis, key: str) -> dict[str, float]:
    found = cast("list[tuple[bytes, float]]", connection.zrange(key, 0, -1, withscores=True))
    return {name.decode(): score for name, score in found}


def _beyond(after: str) -> str:
    return "-" if after in ("-", "0") else f"({after}"
