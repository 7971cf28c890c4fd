"""`rqmem.api` and the commands: the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqmem import api
from rqmem.errors import ConfigError, JournalVersionError, RedisUnavailable, UnknownName
from rqmem.store import keys
from tests.cli.conftest import JOB, Run
from tests.cli.test_json import normalised

Read = Callable[..., Any]
ALL = [api.workers, api.hosts, api.queues, api.job_types, api.splits, api.alerts]


def as_json(values: Any) -> Any:
    return normalised([each.to_json() for each in values])


def test_the_api_returns_what_the_commands_print(filled: Redis, run: Run) -> None:
    status = normalised(run("status", "--json"))
    assert as_json(api.workers(connection=filled)) == status["workers"]
    assert as_json(api.hosts(connection=filled)) == status["hosts"]
    assert as_json(api.queues(connection=filled)) == status["queues"]
    assert as_json(api.job_types("1h", connection=filled)) == status["job_types"]
    assert as_json(api.alerts(connection=filled)) == normalised(run("alerts", "--json"))
    for job_id in ("j1", "parent"):
        shown = normalised(run("inspect", job_id, "--json"))
        assert normalised(api.job(job_id, connection=filled).to_json()) == shown
    filled.sadd(keys.SPLITS, "parent")
    [split] = as_json(api.splits(connection=filled))
    assert (split["job_id"], split["children"]) == ("parent", shown["children"])


def test_values_are_frozen_and_have_the_names_of_the_json(filled: Redis) -> None:
    worker = api.workers(connection=filled)[0]
    assert (worker.name, worker.kind, worker.ceiling_mb, worker.usage_mb) == ("ada", "rqmem", 256.0, 120.5)
    with pytest.raises(FrozenInstanceError):
        worker.name = "eve"  # type: ignore[misc]


def test_reading_changes_nothing(filled: Redis) -> None:
    before = {key: filled.dump(key) for key in filled.scan_iter()}
    for read in ALL:
        read(connection=filled)
    api.job("j1", connection=filled)
    assert {key: filled.dump(key) for key in filled.scan_iter()} == before


def test_a_connection_may_decode_its_replies(filled: Redis, redis_url: str) -> None:
    with Redis.from_url(redis_url, decode_responses=True) as decoding:
        assert [each.name for each in api.workers(connection=decoding)] == ["ada", "bob", "cleo"]


def test_without_a_connection_the_environment_names_the_redis(filled: Redis, run: Run) -> None:
    assert [each.name for each in api.workers()] == ["ada", "bob", "cleo"]


def test_since_is_a_span_or_a_time(filled: Redis) -> None:
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    for since in ("1h", "3600", hour_ago):
        assert JOB in {each.job_type for each in api.job_types(since, connection=filled)}


@pytest.mark.parametrize(
    ("read", "error", "words"),
    [
        (lambda connection: api.job("nobody", connection=connection), UnknownName, "no job 'nobody'"),
        (lambda connection: api.alerts("yesterday", connection=connection), ConfigError, "since='yesterday'"),
        (lambda connection: api.job_types(7, connection=connection), ConfigError, "since=7"),
        (lambda connection: api.workers(connection="redis://x"), ConfigError, "is no connection to Redis"),
    ],
)
def test_bad_input_has_a_named_error(connection: Redis, read: Read, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read(connection)


@pytest.mark.parametrize("read", ALL)
def test_a_redis_that_does_not_answer_is_unavailable(read: Read) -> None:
    with pytest.raises(RedisUnavailable, match="Redis does not answer"):
        read(connection=Redis(port=1, retry=Retry(NoBackoff(), 0)))


def test_a_journal_of_another_version_is_not_misread(filled: Redis) -> None:
    filled.set(keys.VERSION, "99")
    for read in (api.job_types, api.alerts):
        with pytest.raises(JournalVersionError):
            read(connection=filled)  # type: ignore[operator]


def test_no_server_is_started_to_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("RQMEM_REDIS_URL", "RQ_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RedisUnavailable, match="no Redis is named"):
        api.workers()
