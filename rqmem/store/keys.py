"""All Redis keys of rqmem in one table: what each holds, how long it may live, and when it is forgotten.

A new key is one entry here. Everything that expires, deletes, counts or clears keys goes by the table.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from rqmem.rq_names import RQ_KEY_PREFIX
from rqmem.values import dataclass

PREFIX = "rqmem" if RQ_KEY_PREFIX == "rq" else f"{RQ_KEY_PREFIX}:rqmem"

HOUR_SECONDS, DAY_SECONDS, WEEK_SECONDS = 3600, 86400, 7 * 86400
HOURS_KEPT, DAYS_KEPT, WEEKS_KEPT = 48, 30, 2

KEEP_SECONDS = WEEK_SECONDS
"""How long the record of a run is kept after the last write to it."""

WAITING_SECONDS = 90 * DAY_SECONDS
"""How long it is kept while its job waits for children, in its queue, or for its time."""

Type = Literal["string", "hash", "list", "set", "zset", "stream"]

Occasion = Literal["run ends", "job is done", "split is undone", "story", "job type", "journal"]
"""When a key is forgotten: with the record of the run, ..., with the story of its job, with its job type, or when the
journal is cleared. The parts of a run expire together: a cursor without its results would lose them silently."""

_GLOBS = {"period": "[hd]", "number": "[0-9]*", "week": "[0-9]*", "step": "[0-9]*"}
_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Key:
    """One kind of key. Calling it with the names in its template, in order, gives a key.

    Attributes:
        expires: the longest time to live in seconds; True: that is configured; False: it never expires.
    """

    template: str
    type: Type
    holds: str
    expires: int | bool
    forgotten: tuple[Occasion, ...]

    def __call__(self, *names: object) -> str:
        return f"{PREFIX}:{_form(self.template) % names}"

    def pattern(self, **known: str) -> str:
        """The pattern of these keys for SCAN; names that are not ``known`` may be anything."""
        return f"{PREFIX}:{_NAME.sub(lambda name: known.get(name[1], _GLOBS.get(name[1], '*')), self.template)}"

    @property
    def family(self) -> str:
        """The pattern of all keys that begin with the same word."""
        word, colon, _ = self.template.partition(":")
        return f"{word}:*" if colon else word


@cache
def _form(template: str) -> str:
    return _NAME.sub("%s", template)


TABLE: list[Key] = []


def _key(template: str, type: Type, holds: str, expires: int | bool, *forgotten: Occasion) -> Key:
    TABLE.append(Key(template, type, holds, expires, forgotten))
    return TABLE[-1]


# What running and resumable jobs need

RUNNING = _key("running", "hash", "job id -> `Owner` of its execution, with the fencing token", False)()
EPOCH = _key("epoch", "string", "a name of the data in Redis: another one after Redis has lost its data", False)()
DELAYED = _key("delayed", "zset", "job id -> when its resume is due, epoch seconds; RQ has it as scheduled", False)()
SPLITS = _key("splits", "set", "ids of jobs that make children or wait for them", False)()
MENDING = _key("mending", "string", "some worker looks for children whose end was not counted", 60)()
PROBE = _key("probe", "string", "nothing: written to find out whether Redis takes writes to our keys", 1)()
enqueued = _key("enqueued:{call}", "string", "how many batches one call of ``enqueue_many`` has written", 600)
alive = _key("alive:{worker}", "string", "what a worker last said of itself (`Live`); gone when it is dead", True)
parent_told = _key("parenttold:{job_id}", "string", "RQ's meta of that job has just been brought up to date", 1)

taken = _key("taken:{worker}", "list", "ids of the jobs that a worker has taken in a lease and not ended", False)
lease = _key("lease:{worker}", "hash", "a worker's lease: its token, owner, queues, and which job begins", False)
returned = _key(
    "returned:{queue}", "zset", "what leases put back to a queue -> when it was first taken, microseconds", 60,
)  # fmt: skip
LEASES = _key("leases", "set", "names of the workers that have a lease", False)()

run = _key("run:{job_id}", "hash", "a job over all its executions (`RunRecord`)", WAITING_SECONDS, "run ends")
results = _key(
    "results:{job_id}", "list", "what finished chunks returned: ``stage:serialised list``", WAITING_SECONDS,
    "run ends", "job is done",
)  # fmt: skip
children = _key(
    "children:{job_id}", "hash", "number of a child -> how it ended; empty until then", WAITING_SECONDS,
    "run ends", "job is done", "split is undone",
)  # fmt: skip
gathered = _key(
    "gathered:{job_id}", "hash", "number of a child -> what it returned, serialised", WAITING_SECONDS,
    "run ends", "job is done", "split is undone",
)  # fmt: skip
split_below = _key(
    "splitbelow:{job_id}", "set", "numbers of its children that have split themselves", WAITING_SECONDS,
    "run ends", "split is undone",
)  # fmt: skip

# The journal: what may be forgotten. Everything in it is bounded in number, in length and in time.

VERSION = _key("journal:version", "string", "version of the journal's records", False, "journal")()
DROPPED = _key("journal:dropped", "hash", "kind -> how many were not written to the journal", False, "journal")()
SAMPLED = _key("sampled", "zset", "worker -> when last sampled; capped, with its samples", False, "journal")()
samples = _key(
    "samples:{worker}:{step}", "string", "a ring of packed samples, one a step (`history.samples`)",
    DAYS_KEPT * DAY_SECONDS, "journal",
)  # fmt: skip
TYPES = _key("types", "zset", "job type -> when last seen; capped, with its figures", False, "journal")()
runs = _key(
    "runs:{job_type}", "list", "the last runs of a job type (`Run`), newest first, capped", DAYS_KEPT * DAY_SECONDS,
    "job type", "journal",
)  # fmt: skip
tally = _key(
    "tally:{job_type}:{period}{number}", "hash", "counters of one hour (``h``) or day (``d``), counted from 1970",
    (DAYS_KEPT + 1) * DAY_SECONDS, "job type", "journal",
)  # fmt: skip
tenants = _key(
    "tenants:{period}{number}", "zset", "tenant -> MB seconds of an hour (``h``) or day (``d``); capped",
    (DAYS_KEPT + 1) * DAY_SECONDS, "journal",
)  # fmt: skip
TENANTS = _key("tenants", "zset", "tenant -> MB seconds since it was first seen; capped", False, "journal")()
grew = _key(
    "grew:{job_type}:w{week}", "zset", "`Grown` -> peak MB; the highest of a week, counted from 1970",
    WEEKS_KEPT * WEEK_SECONDS, "job type", "journal",
)  # fmt: skip
totals = _key(
    "totals:{job_type}", "hash", "counters since the job type was first seen (`Totals`)", DAYS_KEPT * DAY_SECONDS,
    "job type", "journal",
)  # fmt: skip
leak = _key(
    "leak:{job_type}", "string", "the last leak that was found in a job type (`Told`)", DAYS_KEPT * DAY_SECONDS,
    "job type", "journal",
)  # fmt: skip
STORIES = _key("stories", "zset", "job id -> when its story was last written to; capped, with it", False, "journal")()
story = _key(
    "story:{job_id}", "list", "events of a job and ends of its executions, oldest first; the first and last ones stay",
    WEEK_SECONDS, "story", "journal",
)  # fmt: skip
breaches = _key(
    "breaches:{job_id}", "list", "breaches of a job (`Breach`), newest first, capped", KEEP_SECONDS,
    "story", "journal",
)  # fmt: skip
ALERTS = _key("alerts", "stream", "alerts raised and resolved, capped; senders are consumer groups", False, "journal")()
OPEN_ALERTS = _key("alerts:open", "hash", "``rule|job type`` -> `Open`: alerts that can end", False, "journal")()
quiet = _key(
    "alerts:quiet:{rule}:{job_type}", "string", "how many alerts were not sent; an hour longer than the cool-down",
    True, "job type", "journal",
)  # fmt: skip

ENDED_SPLITS = _key("ended", "list", "jobs whose children have all ended (`EndedSplit`), newest first, capped", False,
                    "journal")()  # fmt: skip

# What people see and do

host = _key("host:{host}", "string", "the memory of a machine (`HostMemory`); gone when no worker runs there", True)
pool = _key("pool:{pool}", "string", "the budget of a pool (`PoolRecord`); gone when none of its workers runs", True)
ACTIONS = _key("actions", "stream", "what people did with jobs and queues (`ActionRecord`), capped", False)()
PAUSED = _key("paused", "set", "names of queues from which rqmem's workers take no job", False)()

PROCESS = "rqmem_process"
"""Field of a worker's record in RQ: `rqmem.measure.procfs.process_identity`. RQ's own workers have none."""

RESTARTS = "rqmem_restarts"
"""Field of the same record: how the worker begins anew (`rqmem.store.restarting.Way`)."""

JOURNAL_PATTERNS = tuple(dict.fromkeys(f"{PREFIX}:{each.family}" for each in TABLE if "journal" in each.forgotten))
"""Patterns of all keys of the journal, few, since Redis goes through all its keys for each."""


def forgotten(occasion: Occasion, job_id: str) -> list[str]:
    """The keys of a job that are forgotten then."""
    return [each(job_id) for each in TABLE if occasion in each.forgotten]


def of_type(job_type: str) -> list[str]:
    """Patterns of the keys of a job type; stories and breaches are kept by job."""
    name = re.sub(r"[\\*?\[\]]", r"\\\g<0>", job_type)
    return [each.pattern(job_type=name) for each in TABLE if "job type" in each.forgotten]
