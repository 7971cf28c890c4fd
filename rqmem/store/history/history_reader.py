"""All reads of the journal; changes nothing. Connections answer in bytes, as RQ demands.

Call `check_version` first: a journal of another version of rqmem is an error instead of being misread.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from redis import Redis

from rqmem.errors import JournalVersionError
from rqmem.events import Breach
from rqmem.policy import histogram
from rqmem.store import codec, keys
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history.history_records import (
    CUT,
    RUN,
    VERSION,
    EndedSplit,
    Grown,
    Live,
    Run,
    Story,
    Tally,
    Told,
    Totals,
)
from rqmem.store.history.pool_records import HostMemory, PoolRecord
from rqmem.store.history.samples import RINGS, Ring, Sample
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT, HOUR_SECONDS, HOURS_KEPT, WEEK_SECONDS, WEEKS_KEPT
from rqmem.store.scripts import answers, of_each, script
from rqmem.store.unreadable import readable

_TALLIES_AT_ONCE = 30  # Redis answers nobody else meanwhile: some 2 ms
_SUMS = {each.name for each in dataclasses.fields(Tally)} - {"durations", "costs"}


def check_version(connection: Redis) -> None:
    raw = cast("bytes | None", connection.get(keys.VERSION))
    if raw is not None and raw != str(VERSION).encode():
        raise JournalVersionError(
            f"the journal on this Redis has version {raw.decode(errors='replace')}, this rqmem reads {VERSION}"
        )


def workers(connection: Redis, names: Iterable[str]) -> list[Live]:
    """What the workers with these names last said of themselves, by name; without those that are dead or RQ's own."""
    found = answers(connection, Redis.get, keys.alive, sorted(set(names)))
    said = [text for text in found.values() if text.startswith(b"{")]
    return readable(partial(codec.from_json, Live), said, keys.alive("*"))


def samples(connection: Redis, worker: str, now: float, ring: Ring = RINGS[0]) -> list[Sample]:
    """A worker's samples of one ring, oldest first."""
    raw = cast("bytes | None", connection.get(keys.samples(worker, ring.step_seconds)))
    return list(ring.unpack(raw or b"", now))


def newest_samples(connection: Redis, since: Mapping[str, float], now: float) -> dict[str, list[Sample]]:
    """Worker -> its samples of the first ring since the time given for it, oldest first.

    Only those are read, in one round trip.
    """
    ring = RINGS[0]
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
        parts = cast("list[bytes]", pipeline.execute())
    raw: dict[str, bytes] = {}
    for (worker, _, _), part in zip(ranges, parts, strict=True):
        raw[worker] = raw.get(worker, b"") + part
    return {
        worker: [sample for sample in ring.unpack(raw[worker], now) if sample.at >= ring.begin(begin)]
        for worker, begin in since.items()
    }


def sampled_workers(connection: Redis) -> dict[str, float]:
    """Worker -> when it was last sampled; all workers whose samples are kept."""
    return _scores(connection, keys.SAMPLED)


def types(connection: Redis) -> dict[str, float]:
    """Job type -> when it was last seen."""
    return _scores(connection, keys.TYPES)


def stories(connection: Redis) -> dict[str, float]:
    """Job id -> when its story was last written to; all jobs whose story is kept."""
    return _scores(connection, keys.STORIES)


def runs(connection: Redis, job_type: str) -> list[Run]:
    """The last runs of a job type, newest first."""
    raw = cast("list[bytes]", connection.lrange(keys.runs(job_type), 0, -1))
    return _runs(raw)


def last_breach(connection: Redis, job_type: str) -> Run | None:
    """The newest of the last runs of a job type that was stopped at its ceiling; None: none was."""
    raw = cast("list[bytes]", connection.lrange(keys.runs(job_type), 0, -1))
    return next((run for run in _runs(text for text in raw if b'"layer"' in text) if run.layer), None)


def runs_with(connection: Redis, job_types: Iterable[str], text: str) -> list[Run]:
    """Those of the last runs of these types that have this text anywhere in their record; newest first by type.

    Only they are decoded, so this is quick also for all job types.
    """
    raw, wanted = of_each(connection, Redis.lrange, map(keys.runs, job_types), 0, -1), json.dumps(text)[1:-1].encode()
    return _runs(each for texts in raw for each in texts if wanted in each)


def grown(connection: Redis, job_type: str, now: float) -> list[Grown]:
    """Where the runs with the highest peaks of this and last week grew, highest first."""
    this = int(now // WEEK_SECONDS)
    names = [keys.grew(job_type, week) for week in range(this - WEEKS_KEPT + 1, this + 1)]
    texts = [text for found in of_each(connection, Redis.zrange, names, 0, -1) for text in found]
    found = readable(partial(codec.from_json, Grown), texts, keys.grew(job_type, "*"))
    return sorted(found, key=lambda each: -each.peak_mb)


def tallies(
    connection: Redis, job_type: str, since: float, until: float, *, by_day: bool | None = None
) -> list[tuple[float, Tally]]:
    """The tallies of a job type from ``since`` to ``until``, oldest first, with the middle of the period of each.

    Periods without a run are left out. ``by_day``: by the day or by the hour; None: by the hour for up to two days.
    """
    period, seconds, numbers = _periods(since, until, by_day)
    found = tallies_of(connection, [(job_type, period, number) for number in numbers])
    return [((number + 0.5) * seconds, each) for (_, _, number), each in found.items()]


def tallies_of(connection: Redis, asked: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], Tally]:
    """The tallies that there are, by job type, period and number."""
    replies = of_each(connection, Redis.hgetall, [keys.tally(*each) for each in asked])
    there = [(each, raw) for each, raw in zip(asked, replies, strict=True) if raw]
    return dict(readable(lambda one: (one[0], codec.from_hash(Tally, one[1])), there, keys.tally("*", "", "*")))


def tallied(connection: Redis, asked: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], Tally]:
    """As `tallies_of`, without the histograms of durations and costs: in a fifth of the time."""
    read = script(connection, "read_tallies")
    with connection.pipeline(transaction=False) as pipeline:
        for first in range(0, len(asked), _TALLIES_AT_ONCE):
            read(keys=[keys.tally(*each) for each in asked[first : first + _TALLIES_AT_ONCE]], client=pipeline)
        found = [values for text in pipeline.execute() for values in json.loads(text)]
    there = [(each, values) for each, values in zip(asked, found, strict=True) if values is not None]
    return dict(readable(lambda one: (one[0], _tally(one[1])), there, keys.tally("*", "", "*")))


def _tally(values: dict[str, Any]) -> Tally:
    if not values.keys() <= _SUMS:
        values = {name: values[name] for name in values.keys() & _SUMS}
    if peaks := values.get("peaks"):
        values["peaks"] = dict(zip(*peaks, strict=True))
    if needed := values.get("needed"):
        values["needed"] = dict(zip(map(float, needed[0]), needed[1], strict=True))
    return Tally.of(values)


def tenants(connection: Redis, since: float, until: float, *, by_day: bool | None = None) -> dict[str, float]:
    """Tenant -> MB seconds of its jobs. Times and ``by_day`` as in `tallies`."""
    period, _, numbers = _periods(since, until, by_day)
    names = [keys.tenants(period, number) for number in numbers]
    used: dict[str, float] = {}
    for found in of_each(connection, Redis.zrange, names, 0, -1, False, True):
        for raw, amount in found:
            tenant = raw.decode(errors="replace")
            used[tenant] = used.get(tenant, 0.0) + amount
    return used


def tenants_in_all(connection: Redis) -> dict[str, float]:
    """Tenant -> MB seconds since it was first seen."""
    return _scores(connection, keys.TENANTS)


def first_seen(connection: Redis, job_types: Iterable[str], now: float) -> dict[str, float]:
    """Job type -> the beginning of its first tally: of an hour, or before the last two days of a day."""
    hours = range(int(now // HOUR_SECONDS) - HOURS_KEPT, int(now // HOUR_SECONDS) + 1)
    days = range(int(now // DAY_SECONDS) - DAYS_KEPT, int(hours[0] * HOUR_SECONDS // DAY_SECONDS) + 1)
    periods = [("d", number, DAY_SECONDS) for number in days] + [("h", number, HOUR_SECONDS) for number in hours]
    asked = [(name, *period) for name in job_types for period in periods]
    replies = of_each(connection, Redis.exists, [keys.tally(*each[:3]) for each in asked])
    found: dict[str, float] = {}
    for (name, _, number, seconds), there in zip(asked, replies, strict=True):
        if there:
            found.setdefault(name, float(number * seconds))
    return found


def hourly(connection: Redis, job_types: Iterable[str], since: float, until: float) -> dict[tuple[str, int], Tally]:
    """Job type and hour, counted from 1970 -> its tally, without the hours that have no run. One round trip."""
    hours = range(int(since // HOUR_SECONDS), int(until // HOUR_SECONDS) + 1)
    found = tallies_of(connection, [(name, "h", hour) for name in job_types for hour in hours])
    return {(name, hour): each for (name, _, hour), each in found.items()}


def tally(connection: Redis, job_type: str, since: float, until: float) -> Tally:
    return Tally.total(each for _, each in tallies(connection, job_type, since, until))


def last_limits(connection: Redis, job_types: Iterable[str]) -> dict[str, float]:
    """Job type -> the ceiling in MB of its last run, if that is remembered."""
    found = answers(connection, Redis.lindex, keys.runs, job_types, 0)
    return dict(readable(lambda one: (one[0], codec.from_json(Run, one[1]).limit_mb), found.items(), keys.runs("*")))


def totals(connection: Redis, job_types: Iterable[str]) -> dict[str, Totals]:
    found = answers(connection, Redis.hgetall, keys.totals, job_types)
    return dict(readable(lambda one: (one[0], codec.from_hash(Totals, one[1])), found.items(), keys.totals("*")))


def begun(connection: Redis, job_types: Iterable[str]) -> dict[str, float]:
    """Job type -> when the first run began that its totals count (epoch seconds), if there are any."""
    found = answers(connection, Redis.hget, keys.totals, job_types, "since")
    return dict(readable(lambda one: (one[0], float(one[1])), found.items(), keys.totals("*")))


def decayed_costs(connection: Redis, job_type: str, now: float) -> dict[int, float]:
    """The histogram of KB per item over all that is kept of a job type; old runs count less."""
    oldest_hour = now - HOURS_KEPT * HOUR_SECONDS
    kept = tallies(connection, job_type, oldest_hour + HOUR_SECONDS, now)
    days = tallies(connection, job_type, now - DAYS_KEPT * DAY_SECONDS, now)
    kept += [(at, each) for at, each in days if at + DAY_SECONDS / 2 <= oldest_hour]
    return histogram.summed((each.costs, histogram.weight(now - at)) for at, each in kept)


def story(connection: Redis, job_id: str) -> list[Told]:
    return whole_story(connection, job_id).told


def whole_story(connection: Redis, job_id: str) -> Story:
    """What is remembered of a job; a class of events that this version does not know is left out."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.lrange(keys.story(job_id), 0, -1)
        pipeline.lrange(keys.breaches(job_id), 0, -1)
        lines, texts = pipeline.execute()
    key = keys.story(job_id)
    breaches = {
        each.execution: each for each in readable(partial(codec.from_json, Breach), texts, keys.breaches(job_id))
    }
    told, ended, last_at, cut_at = [], [], None, None
    for fields in readable(_of_story, lines, key):
        if fields["event"] == CUT:
            cut_at = last_at
            continue
        last_at = fields["at"]
        if fields["event"] == RUN:
            ended += readable(partial(codec.from_values, Run), [fields], key)
            continue
        refers = "execution" in fields  # rqmem 0.1 wrote the breach itself at first
        events = [breaches.get(fields["execution"])] if refers else readable(codec.event_from_values, [fields], key)
        told += [Told(fields["at"], event) for event in events if event is not None]
    told.sort(key=lambda each: each.at)  # events of worker and horse come over two ways
    return Story(told, ended, cut_at)


def last_leaks(connection: Redis, job_types: Iterable[str]) -> dict[str, Told]:
    """Job type -> the last `LeakFound` in it, if there was one within a month."""
    found = answers(connection, Redis.get, keys.leak, job_types)
    read = readable(lambda one: (one[0], _told(json.loads(one[1]))), found.items(), keys.leak("*"))
    return {name: told for name, told in read if told is not None}


def hosts(connection: Redis, names: Iterable[str]) -> dict[str, HostMemory]:
    """Machine -> its memory, of those of which a worker has told it lately."""
    found = answers(connection, Redis.get, keys.host, sorted(set(names)))
    return dict(readable(lambda one: (one[0], codec.from_json(HostMemory, one[1])), found.items(), keys.host("*")))


def pools(connection: Redis, names: Iterable[str]) -> list[PoolRecord]:
    """The pools of these names, in order, of which a worker has told lately."""
    found = answers(connection, Redis.get, keys.pool, sorted(filter(None, set(names))))
    return readable(partial(codec.from_json, PoolRecord), found.values(), keys.pool("*"))


def ended_splits(connection: Redis) -> list[EndedSplit]:
    """Jobs whose children have all ended, newest first; of a job whose children ended twice, the last time."""
    found: dict[str, EndedSplit] = {}
    raw = cast("list[bytes]", connection.lrange(keys.ENDED_SPLITS, 0, -1))
    for ended in readable(partial(codec.from_json, EndedSplit), raw, keys.ENDED_SPLITS):
        found.setdefault(ended.job_id, ended)
    return list(found.values())


def alerts(connection: Redis, after: str = "-", limit: int = 1000) -> list[Alert]:
    """The last ``limit`` alerts after the one with the id ``after`` (``"-"``: of all that are kept), oldest first."""
    first = "-" if after in ("-", "0") else f"({after}"
    newest = cast("list[tuple[bytes, dict[bytes, bytes]]]", connection.xrevrange(keys.ALERTS, "+", first, limit))
    return readable(lambda entry: Alert.from_entry(*entry), reversed(newest), keys.ALERTS)


def next_alerts(connection: Redis, after: str, wait_seconds: float) -> list[Alert]:
    """Alerts after that id, as soon as there are any; an empty list if there are none within ``wait_seconds``."""
    streams = connection.xread({keys.ALERTS: after}, block=max(1, int(1000 * wait_seconds)))
    found = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", streams)
    return [Alert.from_entry(entry_id, entry) for _, entries in found for entry_id, entry in entries]


def open_alerts(connection: Redis) -> list[Open]:
    """The alerts that have not ended and can end, oldest first."""
    raw = cast("dict[bytes, bytes]", connection.hgetall(keys.OPEN_ALERTS))
    found = readable(partial(codec.from_json, Open), raw.values(), keys.OPEN_ALERTS)
    return sorted(found, key=lambda each: each.since)


def dropped(connection: Redis) -> dict[str, int]:
    """How many entries were not written to the journal, by kind."""
    raw = cast("dict[bytes, bytes]", connection.hgetall(keys.DROPPED))
    return dict(readable(lambda one: (one[0].decode(), int(one[1])), raw.items(), keys.DROPPED))


def size(connection: Redis) -> dict[str, tuple[int, int]]:
    """Kind of key -> how many there are and the bytes they take (``MEMORY USAGE``)."""
    found: dict[str, tuple[int, int]] = {}
    for pattern in keys.JOURNAL_PATTERNS:
        kind = pattern.removeprefix(f"{keys.PREFIX}:").removesuffix(":*")
        names = list(connection.scan_iter(pattern, count=1000))
        taken = sum(each or 0 for each in of_each(connection, Redis.memory_usage, names))
        if names:
            count, before = found.get(kind, (0, 0))
            found[kind] = (count + len(names), before + taken)
    return found


def _periods(since: float, until: float, by_day: bool | None) -> tuple[str, int, range]:
    """The letter of the period, its seconds, and the numbers of those between two times."""
    hourly = until - since <= HOURS_KEPT * HOUR_SECONDS if by_day is None else not by_day
    period, seconds = ("h", HOUR_SECONDS) if hourly else ("d", DAY_SECONDS)
    return period, seconds, range(int(since // seconds), int(until // seconds) + 1)


def _scores(connection: Redis, key: str) -> dict[str, float]:
    found = cast("list[tuple[bytes, float]]", connection.zrange(key, 0, -1, withscores=True))
    return dict(readable(lambda one: (one[0].decode(), one[1]), found, key))


def _runs(raw: Iterable[bytes]) -> list[Run]:
    return readable(partial(codec.from_json, Run), raw, keys.runs("*"))


def _of_story(text: bytes) -> dict[str, Any]:
    """The fields of a line, with those that all lines have."""
    fields: dict[str, Any] = json.loads(text)
    fields["event"], float(fields["at"] if fields["event"] != CUT else 0)
    return fields


def _told(fields: dict[str, Any]) -> Told | None:
    event = codec.event_from_values(fields)
    return None if event is None else Told(fields["at"], event)
