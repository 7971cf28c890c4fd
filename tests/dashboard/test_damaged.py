"""Redis with damaged data: every page shows the rest, and says in one line what is left out."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable

import pytest
from redis import Redis

from rqmem.dashboard.app import build
from rqmem.dashboard.options import Options, from_environ
from rqmem.store import actions, codec, keys
from rqmem.store.execution_records import Owner
from rqmem.store.history.history_records import EndedSplit
from tests.dashboard.conftest import JOB, TYPE, busy
from tests.journal_filling import a_live, a_pool, fill_what_jobs_need, hold_back, raise_alert, register

_PATHS = (
    "/", f"/jobs/{JOB}", "/jobs", "/jobs?state=queued", "/types", f"/types/{TYPE}", "/splitting", "/leaks", "/alerts",
    "/trends", "/queues", "/workers", "/search?q=0f1e2d", "/api/v1/actions", f"/jobs/{JOB}/cancel",
)  # fmt: skip
_MARKER = "Left out, because Redis has something else there"


def everything(connection: Redis) -> list[bytes]:
    """A key of each kind that pages read; returns one of each."""
    busy(connection)
    fill_what_jobs_need(connection, JOB)
    connection.hset(keys.RUNNING, JOB, codec.to_json(Owner("execution", "ada", "q", "h", 2, 7)))
    actions.note(connection, actions.ActionRecord("retry", "me", "api"))
    raise_alert(connection, TYPE, "above 80 %")
    connection.set(keys.pool("heavy"), codec.to_json(a_pool("heavy")))
    register(connection, "p-2", "q", live=a_live("p-2", pool="heavy"))
    hold_back(connection, "k", ["waits"], 1)
    connection.lpush(keys.ENDED_SPLITS, codec.to_json(EndedSplit(JOB, TYPE, children=3)))
    connection.sadd(keys.SPLITS, "parent")
    connection.hset(keys.run("parent"), mapping={"job": TYPE, "split_queue": "q", "split_end": "3"})
    found: list[bytes] = sorted(connection.keys())  # type: ignore[arg-type]
    kinds = {(key.split(b":")[:2][-1], key.count(b":"), connection.type(key)): key for key in found}
    return [key for key in kinds.values() if key != keys.VERSION.encode()]


def of_another_type(connection: Redis, key: bytes) -> None:
    is_text = connection.type(key) == b"string"
    connection.delete(key)
    if is_text:
        connection.rpush(key, "x")
    else:
        connection.set(key, "x")


def filled_with(garbage: bytes) -> Callable[[Redis, bytes], None]:
    """Each value becomes ``garbage``; a set and a sorted set, which have names, get it as one more."""

    def damage(connection: Redis, key: bytes) -> None:
        match connection.type(key):
            case b"string":
                connection.set(key, garbage)
            case b"hash":
                connection.hset(key, mapping=dict.fromkeys(connection.hkeys(key), garbage))  # type: ignore[arg-type]
            case b"list":
                for place in range(int(connection.llen(key))):  # type: ignore[arg-type]
                    connection.lset(key, place, garbage)  # type: ignore[arg-type]
            case b"set":
                connection.sadd(key, garbage)
            case b"zset":
                connection.zadd(key, {garbage: 1})
            case b"stream":
                connection.xadd(key, {b"alert": garbage, b"action": garbage})

    return damage


def half_written(connection: Redis, key: bytes) -> None:
    match connection.type(key):
        case b"string":
            text = connection.get(key)
            connection.set(key, text[: len(text) // 2])  # type: ignore[index, arg-type]
        case b"hash":
            connection.hdel(key, *sorted(connection.hkeys(key))[::2])  # type: ignore[arg-type]
        case b"list":
            for place, text in enumerate(connection.lrange(key, 0, -1)):  # type: ignore[arg-type]
                connection.lset(key, place, text[: len(text) // 2])
        case b"stream":
            connection.xadd(key, {"none": "of ours"})


def failing(connection: Redis) -> list[str]:
    """The pages that answer 500, of a dashboard that has read nothing yet."""
    client = build(connection, "redis", from_environ(os.environ)).test_client()
    return [path for path in _PATHS if client.get(path, headers={"Host": "localhost"}).status_code >= 500]


def test_a_page_shows_the_rest_where_one_key_is_of_another_type(connection: Redis) -> None:
    found = {}
    for key in everything(connection):
        kept = connection.dump(key)
        of_another_type(connection, key)
        found[key] = failing(connection)
        connection.restore(key, 0, kept, replace=True)  # type: ignore[arg-type]
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "damage",
    [filled_with(b'{"a":'), filled_with(b"{}"), filled_with(b"\xff\xfe{"), half_written],
    ids=["no JSON", "no fields", "no UTF-8", "half written"],
)
def test_a_page_shows_the_rest_of_what_is_damaged(connection: Redis, damage: Callable[[Redis, bytes], None]) -> None:
    """More and more is damaged, until all of it is: a damaged list of names would hide the rest."""
    keys_left = everything(connection)
    while keys_left:
        for key in [keys_left.pop() for _ in range(min(8, len(keys_left)))]:
            damage(connection, key)
        assert failing(connection) == [], keys_left


@pytest.mark.parametrize(
    ("path", "key", "still"),
    [
        (f"/types/{TYPE}", keys.runs(TYPE), "histogram"),
        ("/queues", "rq:failed:q", "/queues/q/pause"),
        ("/workers", "rqmem:alive:web-1-w1", "web-1-w2"),
        (f"/jobs/{JOB}", keys.story(JOB), "ExportJob"),
    ],
)
def test_a_page_names_what_it_leaves_out(connection: Redis, path: str, key: str, still: str) -> None:
    busy(connection)
    client = build(connection, "redis", Options()).test_client()
    assert _MARKER not in client.get(path).text
    of_another_type(connection, key.encode())
    page = client.get(path).text
    assert _MARKER in page and still in page
    assert key in page


def test_an_action_is_refused_on_a_key_of_another_type(connection: Redis) -> None:
    busy(connection)
    of_another_type(connection, keys.PAUSED.encode())
    client = build(connection, "redis", Options(token="t")).test_client()
    answer = client.post("/api/v1/queues/q/pause", headers={"Authorization": "Bearer t"})
    assert answer.status_code == 503 and "WRONGTYPE" in answer.text
    assert connection.get(keys.PAUSED) == b"x"


def test_a_journal_of_another_version_is_said_and_is_no_fault_of_ours(connection: Redis) -> None:
    busy(connection)
    connection.set(keys.VERSION, 99)
    client = build(connection, "redis", Options()).test_client()
    answers = {path: client.get(path) for path in _PATHS}
    assert {answer.status_code for answer in answers.values()} <= {200, 302, 404, 503}
    assert "has version 99" in answers["/types"].text


def test_a_cursor_that_no_answer_gave_is_refused(connection: Redis) -> None:
    busy(connection)
    client = build(connection, "redis", Options()).test_client()
    for places in ("[]", '{"q":[1]}', '{"q":["a","b","c"]}', '{"q":[1,"failed",NaN]}'):
        cursor = urlsafe_b64encode(places.encode()).decode().rstrip("=")
        assert client.get(f"/api/v1/jobs?cursor={cursor}").status_code == 400, places
