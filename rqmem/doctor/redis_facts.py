"""What the doctor reads of Redis: the one that commands use. Starts no server and writes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import redis

from rqmem.connection import connect, embedded
from rqmem.errors import EmbeddedRedisError, RedisUnavailable
from rqmem.observe.model import RedisMemory
from rqmem.observe.snapshot import memory_of
from rqmem.rq_names import WORKERS_BY_QUEUE_KEY, Queue
from rqmem.store import permission
from rqmem.values import dataclass


@dataclass(frozen=True)
class RedisServer:
    """A server that answers. None: it does not tell (``CONFIG`` may be forbidden).

    Attributes:
        where: its URL without password and who named it, or that it is the embedded one.
        server: ``Redis`` or ``Valkey``.
        version: as Redis counts, which Valkey tells too.
        save: the snapshots it makes; "": none.
        node_bytes: ``stream-node-max-bytes``.
        cluster: it is a node of a Redis Cluster.
        keys_refused: why this user may not use rqmem's keys; "": it may.
        save_failed: the last snapshot or append failed; it may refuse writes.
        unserved: queues in which jobs wait and which no worker serves.
    """

    where: str
    server: str
    shown_version: str
    version: tuple[int, ...]
    memory: RedisMemory
    appendonly: bool
    save: str | None
    node_bytes: int | None
    replica: bool
    read_only: bool
    save_failed: bool
    cluster: bool = False
    keys_refused: str = ""
    unserved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Silent:
    """A server that answers, and refuses ``INFO``, as some managed services do. ``reason``: in its words."""

    where: str
    reason: str
    keys_refused: str = ""


@dataclass(frozen=True)
class NoRedis:
    """None was asked. ``problem``: it should have answered; else the embedded one, which does not run yet."""

    text: str
    problem: bool


def read_redis(url: str | None) -> RedisServer | Silent | NoRedis:
    """The facts on the Redis that commands with this ``--url`` use. Raises `ConfigError` for a bad URL."""
    choice = connect.choose_url(url)
    try:
        if choice is not None:
            with connect.connect(url) as client:
                return _ask(client, f"{choice.shown} ({choice.source})")
        server = embedded.status()
        if server is None:
            return NoRedis("none is named: the embedded one would be used, and started when needed", problem=False)
        with redis.Redis.from_url(server.url) as client:
            return _ask(client, "the embedded one of this directory")
    except (RedisUnavailable, EmbeddedRedisError) as error:
        return NoRedis(str(error), problem=True)
    except (redis.RedisError, OSError) as error:
        where = choice.shown if choice is not None else "the embedded Redis"
        return NoRedis(f"{where} answered, and then not: {' '.join(str(error).split())}", problem=True)


def _ask(client: redis.Redis, where: str) -> RedisServer | Silent:
    refused = permission.refused(client)
    try:
        info: Any = client.info()
    except redis.ResponseError as error:
        return Silent(where, " ".join(str(error).split()), refused)
    settings = {**_config(client, "save"), **_config(client, "stream-node-max-bytes")}
    server = replace(from_info(info, settings, where), keys_refused=refused)
    return server if server.cluster else replace(server, unserved=_unserved(client))


def _unserved(client: redis.Redis) -> tuple[str, ...]:
    """Nothing where this user may not read RQ's keys."""
    try:
        return tuple(
            queue.name
            for queue in sorted(Queue.all(connection=client), key=lambda each: each.name)
            if queue.count and not client.scard(WORKERS_BY_QUEUE_KEY % queue.name)
        )
    except redis.ResponseError:
        return ()


def _config(client: redis.Redis, name: str) -> Any:
    """Nothing where ``CONFIG`` is forbidden or renamed, as managed services do."""
    try:
        return client.config_get(name)
    except redis.ResponseError:
        return {}


def from_info(info: Mapping[str, Any], settings: Mapping[str, str], where: str) -> RedisServer:
    """The facts in the answers of ``INFO`` and ``CONFIG GET``."""
    valkey = info.get("valkey_version")
    node_bytes = settings.get("stream-node-max-bytes")
    return RedisServer(
        where=where,
        server="Valkey" if valkey else "Redis",
        shown_version=str(valkey or info["redis_version"]),
        version=tuple(int(part) for part in re.findall(r"\d+", str(info["redis_version"]))[:3]),
        memory=memory_of(info),
        appendonly=bool(info.get("aof_enabled", 0)),
        save=settings.get("save"),
        node_bytes=int(node_bytes) if node_bytes is not None else None,
        replica=info.get("role") in ("slave", "replica"),
        read_only=bool(info.get("slave_read_only", 0)),
        cluster=info.get("redis_mode") == "cluster" or bool(info.get("cluster_enabled", 0)),
        save_failed="err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")),
    )
