"""What is found in Redis: facts in, findings out. Pure."""

from __future__ import annotations

import shlex

from rqmem.doctor.redis_facts import NoRedis, RedisServer, Silent
from rqmem.observe.problems import NEARLY_FULL, Finding
from rqmem.store import keys
from rqmem.units import to_mb

_NEEDED = (5,)  # rq 3: "requires Redis >= 5 or Valkey >= 7.2"
_HAS_LMOVE = (6, 2)
_SMALL_NODE_BYTES = 512


def check_redis(facts: RedisServer | Silent | NoRedis) -> list[Finding]:
    """Fit for RQ and rqmem, and what jobs could be lost by."""
    if isinstance(facts, NoRedis):
        return [_unasked(facts)]
    if isinstance(facts, Silent):
        text = f"{facts.where} answers, and refuses INFO ({facts.reason}): version, memory and disk cannot be seen"
        seen = Finding("server", "note", text, "allow INFO to its user, as in ACL SETUSER NAME +info")
        return [seen, *_keys(facts.keys_refused)]
    if facts.cluster:
        text = f"{facts.server} {facts.shown_version} at {facts.where} is a node of a Redis Cluster"
        advice = "RQ does not support a Cluster: name one primary, with replicas and Sentinel if it must not fail"
        return [Finding("server", "problem", text, advice)]
    return [
        *_keys(facts.keys_refused),
        _server(facts),
        *_role(facts),
        _eviction(facts),
        _persistence(facts),
        _results(facts),
        *_queues(facts),
    ]


def _keys(refused: str) -> list[Finding]:
    if not refused:
        return []
    advice = f"its user needs {keys.PREFIX}:* in addition to RQ's keys: ACL SETUSER NAME ~{keys.PREFIX}:*"
    return [Finding("keys", "problem", f"rqmem's keys are refused: {refused}", advice)]


def _unasked(facts: NoRedis) -> Finding:
    if not facts.problem:
        return Finding("server", "ok", facts.text)
    text, found, advice = facts.text.rpartition("; ")  # our errors end with what to do
    if not found:
        text, advice = facts.text, "start it, or name another with --url or RQMEM_REDIS_URL"
    return Finding("server", "problem", text, advice)


def _server(facts: RedisServer) -> Finding:
    text = f"{facts.server} {facts.shown_version} at {facts.where}"
    if facts.version < _NEEDED:
        return Finding("server", "problem", text, "RQ 3 needs Redis 5 or Valkey 7.2, or later")
    if facts.version < _HAS_LMOVE:
        advice = "before 6.2 there is no BLMOVE: a job is lost when its worker dies in the instant it took it"
        return Finding("server", "note", text, f"{advice}; use Redis 6.2 or later")
    return Finding("server", "ok", text)


def _role(facts: RedisServer) -> list[Finding]:
    if not facts.replica:
        return []
    if facts.read_only:
        return [Finding("role", "problem", "a read-only replica", "name the primary: jobs have to be written")]
    return [Finding("role", "note", "a replica", "what is written here is lost at its next resync")]


def _eviction(facts: RedisServer) -> Finding:
    memory = facts.memory
    limit = f"maxmemory {to_mb(memory.max_bytes):,.0f} MB, {memory.policy}"
    if not memory.max_bytes:
        return Finding("eviction", "ok", "no maxmemory, so nothing is evicted")
    if memory.policy != "noeviction":
        advice = "when it is full, Redis deletes jobs and results: CONFIG SET maxmemory-policy noeviction"
        return Finding("eviction", "problem", limit, advice)
    if memory.used_bytes > NEARLY_FULL * memory.max_bytes:
        text = f"{limit}; {100 * memory.used_bytes / memory.max_bytes:.0f} % in use"
        return Finding("eviction", "note", text, "when it is full, jobs can neither be enqueued nor finished")
    return Finding("eviction", "ok", limit)


def _persistence(facts: RedisServer) -> Finding:
    if facts.save_failed:
        text = "its last write to disk failed"
        return Finding("on disk", "problem", text, "it may refuse writes (MISCONF): see its log; is the disk full?")
    if facts.appendonly:
        return Finding("on disk", "ok", "append-only file")
    if facts.save is None:
        text = "no append-only file; whether it makes snapshots cannot be read (CONFIG is forbidden)"
        return Finding("on disk", "note", text, "without either, a restart of Redis loses all jobs")
    if facts.save:
        text = "snapshots only: a crash of Redis loses what came since the last"
        return Finding("on disk", "note", text, "appendonly yes in its configuration keeps all but a second")
    text = "neither append-only file nor snapshots: a restart of Redis loses all jobs"
    return Finding("on disk", "note", text, "appendonly yes in its configuration")


def _queues(facts: RedisServer) -> list[Finding]:
    """A queue of ``escalate_to`` without a worker is found once it has jobs."""
    text = f"jobs wait in {', '.join(map(repr, facts.unserved))}, and no worker serves that"
    advice = f"start one: {shlex.join(['rqmem', 'worker', *facts.unserved])}"
    return [Finding("queues", "note", text, advice)] if facts.unserved else []


def _results(facts: RedisServer) -> Finding:
    if facts.node_bytes is None:
        text = "stream-node-max-bytes cannot be read (CONFIG is forbidden)"
        return Finding("results", "note", text, "at 256 a finished job's result takes 1.5 KB, at 4096 5.2 KB")
    if 0 < facts.node_bytes <= _SMALL_NODE_BYTES:
        return Finding("results", "ok", f"stream-node-max-bytes {facts.node_bytes}: 1.5 KB a finished job")
    text = f"stream-node-max-bytes {facts.node_bytes}: 5.2 KB a finished job, where 1.5 would do"
    return Finding("results", "note", text, "CONFIG SET stream-node-max-bytes 256, and in its configuration")
