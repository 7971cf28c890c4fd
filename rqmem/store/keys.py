"""All Redis keys of rqmem, named here and nowhere else."""

from __future__ import annotations

import re

from rqmem.rq_names import RQ_KEY_PREFIX

PREFIX = "rqmem" if RQ_KEY_PREFIX == "rq" else f"{RQ_KEY_PREFIX}:rqmem"

PROBE = f"{PREFIX}:probe"
"""String that is never there for long: whether the Redis user may use our keys at all."""

RUNNING = f"{PREFIX}:running"
"""Hash: job id -> `Owner` of its present execution, as JSON. The fencing token is in it."""


EPOCH = f"{PREFIX}:epoch"
"""String: made by the first worker that finds it gone. Another one than before: Redis has lost its data meanwhile."""


PROBE = f"{PREFIX}:probe"
"""Never there: who writes it only where it is there hears whether Redis takes writes."""


def alive(worker: str) -> str:
    """String with a short time to live: there while that worker's heart beats."""
    return f"{PREFIX}:alive:{worker}"


PROCESS = "rqmem_process"
"""Field of a worker's record in RQ: `rqmem.measure.procfs.process_identity`. RQ's own workers have none."""

DELAYED = f"{PREFIX}:delayed"
"""Sorted set: job id -> when its resume is due, in s since 1970. RQ's scheduled registry has it too."""


def run(job_id: str) -> str:
    """Hash: what is known of a memory-aware job over all its executions (`RunRecord`)."""
    return f"{PREFIX}:run:{job_id}"


def breaches(job_id: str) -> str:
    """List: the breaches of a job as JSON, newest first, capped."""
    return f"{PREFIX}:breaches:{job_id}"


def results(job_id: str) -> str:
    """List: what the processors of finished chunks returned, one ``stage:serialised list`` a chunk."""
    return f"{PREFIX}:results:{job_id}"


# The journal proper: what may be forgotten. Everything in it is bounded in number, in length and in time.

VERSION = f"{PREFIX}:journal:version"
"""String: of the values below (`rqmem.store.history.history_records.VERSION`)."""

DROPPED = f"{PREFIX}:journal:dropped"
"""Hash: what was not written, by kind: since Redis was away or refused, or there was too much."""

SAMPLED = f"{PREFIX}:sampled"
"""Sorted set: worker -> when last sampled; capped, with the rings of those that go."""

TYPES = f"{PREFIX}:types"
"""Sorted set: job type -> when last seen; capped, with what is known of those that go."""

STORIES = f"{PREFIX}:stories"
"""Sorted set: job id -> when last written to; capped, with the stories of those that go."""

ALERTS = f"{PREFIX}:alerts"
"""Stream: alerts as they were raised and resolved, capped; each sender reads it as a consumer group."""

OPEN_ALERTS = f"{PREFIX}:alerts:open"
"""Hash: ``rule|job type`` -> `rqmem.store.alerts.alert_records.Open`, as JSON: those that can end and have not."""


def samples(worker: str, step_seconds: int) -> str:
    """String: a ring of packed samples, one a step (`rqmem.store.history.samples`)."""
    return f"{PREFIX}:samples:{worker}:{step_seconds}"


def runs(job_type: str) -> str:
    """List: the last runs of a job type as JSON, newest first, capped."""
    return f"{PREFIX}:runs:{job_type}"


def tally(job_type: str, period: str, number: int) -> str:
    """Hash: counters and histograms of a job type in one hour (``"h"``) or day (``"d"``), counted from 1970."""
    return f"{PREFIX}:tally:{job_type}:{period}{number}"


def grew(job_type: str, week: int) -> str:
    """Sorted set: `Grown` as JSON -> peak MB; the highest of a week, counted from 1970."""
    return f"{PREFIX}:grew:{job_type}:w{week}"


def totals(job_type: str) -> str:
    """Hash: counters of a job type since it was first seen (`rqmem.store.history.totals`); goes with the type."""
    return f"{PREFIX}:totals:{job_type}"


def story(job_id: str) -> str:
    """List: the events of a job as JSON, oldest first, capped."""
    return f"{PREFIX}:story:{job_id}"


def quiet(rule: str, job_type: str) -> str:
    """String with a time to live of an hour more than the alert is quiet for: counts those not told."""
    return f"{PREFIX}:alerts:quiet:{rule}:{job_type}"


def of_type(job_type: str) -> tuple[str, ...]:
    """Patterns for what is kept under the name of a job type; jobs' stories and breaches are under their own."""
    name = re.sub(r"[\\*?\[\]]", r"\\\g<0>", job_type)
    by_period = f"{PREFIX}:tally:{name}:[hd][0-9]*", f"{PREFIX}:grew:{name}:w[0-9]*"
    return runs(name), *by_period, totals(name), quiet("*", name)


JOURNAL_PATTERNS = tuple(
    f"{PREFIX}:{name}"
    for name in (
        *("journal:*", "sampled", "samples:*", "types", "runs:*", "tally:*", "grew:*", "totals:*"),
        *("stories", "story:*", "breaches:*", "alerts", "alerts:*"),
    )
)
"""Everything of the journal. Not in it: what running and resumable jobs need (`RUNNING`, `alive`, `run`, `results`)."""


MENDING = f"{PREFIX}:mending"
"""String with a short time to live: a worker looks for children that have not told of their end."""

SPLITS = f"{PREFIX}:splits"
"""Set: ids of jobs that make children, or wait for them."""


def children(parent_id: str) -> str:
    """Hash: number of a child -> how it ended; empty until then."""
    return f"{PREFIX}:children:{parent_id}"


def split_below(parent_id: str) -> str:
    """Set: numbers of its children that have split themselves; lives as long as its run."""
    return f"{PREFIX}:splitbelow:{parent_id}"


def gathered(parent_id: str) -> str:
    """Hash: number of a child -> what it returned, serialised."""
    return f"{PREFIX}:gathered:{parent_id}"


def parent_told(parent_id: str) -> str:
    """String with a short time to live: RQ's meta of that job has been told how far its children are."""
    return f"{PREFIX}:parenttold:{parent_id}"


def beside_run(job_id: str) -> tuple[str, str, str]:
    """What is of no use without the `run` of that job, and it without them."""
    return results(job_id), children(job_id), gathered(job_id)
