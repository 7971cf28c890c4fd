"""All writes to the journal except alerts (`rqmem.store.alerts.alert_writer`). Every write bounds what it adds to.

Functions add commands to a pipeline of the caller. A full Redis takes some commands and refuses others, so each command
must be correct without the others. `trim` removes what has outgrown its number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline

from rqmem.events import WHOSE, Breach, Event, LeakFound
from rqmem.store import codec, keys
from rqmem.store.history.history_records import (
    CUT,
    RUN,
    VERSION,
    Grown,
    Live,
    Run,
)
from rqmem.store.history.kept_types import KEPT_TYPES, forget_beyond
from rqmem.store.history.pool_records import HostMemory, PoolRecord
from rqmem.store.history.run_counts import counts_of_tally, counts_of_totals
from rqmem.store.history.samples import RINGS, Sample
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT, HOUR_SECONDS, HOURS_KEPT, WEEK_SECONDS, WEEKS_KEPT
from rqmem.store.scripts import of_each, script

# At worst 60 MB together, if everything reaches its bound; a few MB with 20 job types.
KEPT_RUNS = 100
KEPT_STORIES, KEPT_STORY_LINES, KEPT_FIRST_LINES = 800, 100, 20
KEPT_SAMPLED_WORKERS = 100
KEPT_GROWN = 5
KEPT_TENANTS = 200
_TRIMMED_AT_ONCE = 500


def version_is_ours(connection: Redis) -> bool:
    """Mark the journal with our version, unless it has a mark. Returns whether the mark is ours."""
    connection.set(keys.VERSION, VERSION, nx=True)
    return connection.get(keys.VERSION) == str(VERSION).encode()


def beat(pipeline: Pipeline, live: Live, seconds: float) -> None:
    """Say that a worker lives, for ``seconds`` from now, and what it does.

    A Redis without memory refuses the first command and takes the second, so the worker still counts as alive.
    """
    pipeline.set(keys.alive(live.worker), codec.to_json(live), px=int(seconds * 1000))
    pipeline.pexpire(keys.alive(live.worker), int(seconds * 1000))


def write_host(pipeline: Pipeline, memory: HostMemory, seconds: float) -> None:
    """Say how much memory a machine has; for ``seconds`` from now. The last of its workers to say so is right."""
    pipeline.set(keys.host(memory.host), codec.to_json(memory), px=int(seconds * 1000))


def write_pool(pipeline: Pipeline, record: PoolRecord, seconds: float) -> None:
    pipeline.set(keys.pool(record.pool), codec.to_json(record), px=int(seconds * 1000))


def write_samples(pipeline: Pipeline, worker: str, samples: Sequence[Sample], now: float) -> None:
    """Write the present sample of each ring, in the order of `RINGS`."""
    for ring, sample in zip(RINGS, samples, strict=True):
        key = keys.samples(worker, ring.step_seconds)
        pipeline.setrange(key, ring.offset(sample.at), ring.pack(sample))
        pipeline.expire(key, ring.seconds)
    pipeline.zadd(keys.SAMPLED, {worker: round(now)})


def write_runs(
    pipeline: Pipeline,
    runs: Sequence[Run],
    alerts: Mapping[tuple[str, str], int],
    now: float,
    leaks: Iterable[LeakFound] = (),
    kept: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add runs that ended, leaks found, and alerts raised (by job type and rule) to the figures of their job types.

    ``kept``: job type -> the name under which its figures are kept (`rqmem.store.history.kept_types`), if not its own.
    """
    by_rule: dict[str, Counter[str]] = {}
    for (job, rule), count in alerts.items():
        by_rule.setdefault(kept.get(job, job), Counter())[rule] += count
    leaks = list(leaks)
    leak_mb: dict[str, list[float]] = {}
    for leak in leaks:
        leak_mb.setdefault(kept.get(leak.job, leak.job), []).append(leak.mb_per_run)
    by_type: dict[str, list[Run]] = {name: [] for name in [*by_rule, *leak_mb] if name}
    for run in runs:
        by_type.setdefault(kept.get(run.job, run.job), []).append(run)
    if "" in by_rule:  # about no job
        _add(pipeline, keys.totals(""), counts_of_totals({}, [], by_rule[""]), keys.totals.expires)
    for name, ended in by_type.items():
        raised = by_rule.get(name, Counter())
        counts = counts_of_tally(ended, sum(raised.values()), leak_mb.get(name, []))
        for period, seconds, number in (("h", HOUR_SECONDS, HOURS_KEPT), ("d", DAY_SECONDS, DAYS_KEPT)):
            _add(pipeline, keys.tally(name, period, int(now // seconds)), counts, seconds * (number + 1))
        _add(pipeline, keys.totals(name), counts_of_totals(counts, ended, raised), keys.totals.expires)
        if ended:
            began = min(run.ended_at - run.seconds for run in ended)
            pipeline.hsetnx(keys.totals(name), "since", str(round(began, 3)))
            key = keys.runs(name)
            pipeline.lpush(key, *(codec.to_json(run) for run in ended[-KEPT_RUNS:]))
            pipeline.ltrim(key, 0, KEPT_RUNS - 1)
            pipeline.expire(key, keys.runs.expires)
    _write_tenants(pipeline, runs, now)
    for leak in leaks:
        told = {"at": round(now, 3), **codec.event_to_values(leak)}
        pipeline.set(keys.leak(kept.get(leak.job, leak.job)), json.dumps(told), ex=keys.leak.expires)
    if by_type:
        pipeline.zadd(keys.TYPES, dict.fromkeys(by_type, round(now)))


def _write_tenants(pipeline: Pipeline, runs: Iterable[Run], now: float) -> None:
    """Those who used most stay."""
    used: Counter[str] = Counter()
    for run in runs:
        if run.tenant:
            used[run.tenant] += run.times * run.mb_seconds  # type: ignore[assignment]
    if not used:
        return
    for period, seconds in (("h", HOUR_SECONDS), ("d", DAY_SECONDS), ("", 0)):
        key = keys.tenants(period, int(now // seconds)) if seconds else keys.TENANTS
        for tenant, amount in used.items():
            pipeline.zincrby(key, round(amount, 3), tenant)
        pipeline.zremrangebyrank(key, 0, -KEPT_TENANTS - 1)
        if seconds:
            pipeline.expire(key, seconds * ((HOURS_KEPT if period == "h" else DAYS_KEPT) + 1))


def story_line(at: float, event: Event) -> dict[str, Any]:
    """The event for `write_story`. Of a breach only which one it was: `executions.save_breach` has kept it."""
    values = codec.event_to_values(event)
    names = ("event", *WHOSE, "execution") if isinstance(event, Breach) else values
    return {"at": round(at, 3), **{name: values[name] for name in names}}


def end_line(run: Run) -> dict[str, Any]:
    """The end of an execution for `write_story`, with its curve. An rqmem that does not know it leaves it out."""
    return {"at": round(run.ended_at, 3), "event": RUN, **json.loads(codec.to_json(run))}


def write_story(pipeline: Pipeline, job_id: str, lines: Sequence[Mapping[str, Any]], now: float) -> None:
    """Events of a job as `story_line` or `end_line` has them, oldest first. The first and the last ones stay."""
    key = keys.story(job_id)
    values = [KEPT_FIRST_LINES, KEPT_STORY_LINES, json.dumps({"event": CUT}), *(json.dumps(line) for line in lines)]
    script(pipeline, "write_story")(keys=[key], args=values, client=pipeline)
    pipeline.expire(key, keys.story.expires)
    pipeline.zadd(keys.STORIES, {job_id: round(now)})


def write_grown(pipeline: Pipeline, grown: Iterable[Grown], kept: Mapping[str, str] = MappingProxyType({})) -> None:
    """Add where runs grew. Those with the highest peaks of a job type and week stay. ``kept``: as in `write_runs`."""
    for each in grown:
        week = int(each.at // WEEK_SECONDS)
        key = keys.grew(kept.get(each.job, each.job), week)
        pipeline.zadd(key, {codec.to_json(each): each.peak_mb})
        pipeline.zremrangebyrank(key, 0, -KEPT_GROWN - 1)
        pipeline.expireat(key, (week + WEEKS_KEPT) * WEEK_SECONDS)


def count_dropped(pipeline: Pipeline, dropped: Mapping[str, int]) -> None:
    for kind, count in dropped.items():
        if count:
            pipeline.hincrby(keys.DROPPED, kind, count)


def trim(connection: Redis) -> None:
    """Forget the oldest job types, stories and sampled workers beyond their numbers."""
    stories, workers = of_each(connection, Redis.zcard, (keys.STORIES, keys.SAMPLED))
    forget_beyond(connection, KEPT_TYPES)
    gone = []
    for job_id in _popped(connection, keys.STORIES, stories - KEPT_STORIES):
        gone += keys.forgotten("story", job_id)
    for worker in _popped(connection, keys.SAMPLED, workers - KEPT_SAMPLED_WORKERS):
        gone += [keys.samples(worker, ring.step_seconds) for ring in RINGS]
    if gone:
        connection.unlink(*gone)


def _add(pipeline: Pipeline, key: str, counts: Mapping[str, float], seconds: int) -> None:
    for field, amount in counts.items():
        if isinstance(amount, int):
            pipeline.hincrby(key, field, amount)
        else:
            pipeline.hincrbyfloat(key, field, round(amount, 3))
    pipeline.expire(key, seconds)


def _popped(connection: Redis, key: str, count: int) -> list[str]:
    if count <= 0:
        return []
    popped = cast("list[tuple[bytes, float]]", connection.zpopmin(key, min(count, _TRIMMED_AT_ONCE)))
    return [name.decode() for name, _ in popped]
