"""Which errors of Redis pass by themselves, and the wait for that. Texts as Redis and redis-py give them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions as redis_errors
from redis._parsers.base import BaseParser

from rqmem.store import retrying
from rqmem.store.retrying import described, refusal, unavailable, until_redis_answers

REPLIES = {
    "READONLY You can't write against a read only replica.": "READONLY",
    "READONLY You can't write against a read only replica. script: f00, on @user_script:3.": "READONLY",
    "OOM command not allowed when used memory > 'maxmemory'.": "OOM",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": "MISCONF",
    "MISCONF Errors writing to the AOF file: No space left on device": "MISCONF",
    "NOREPLICAS Not enough good replicas to write.": "NOREPLICAS",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "MASTERDOWN",
    "CLUSTERDOWN The cluster is down": "CLUSTERDOWN",
    "TRYAGAIN Multiple keys request during rehashing of slot": "TRYAGAIN",
    "LOADING Redis is loading the dataset in memory": "LOADING",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "BUSY",
    "UNBLOCKED client unblocked via CLIENT UNBLOCK": "UNBLOCKED",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)": "UNBLOCKED",
    "NOAUTH Authentication required.": "NOAUTH",
    "WRONGPASS invalid username-password pair or user is disabled.": "NOAUTH",
    "NOPERM this user has no permissions to run the 'hset' command or its subcommand": "NOPERM",
    "ERR max number of clients reached": "max number of clients",
    "ERR max number of clients + cluster connections reached": "max number of clients",
    "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.": "OOM",
    "ERR Error running script (call to f_00): @user_script:3: @user_script: 3: -READONLY You can't write.": "READONLY",
    "ERR Error running script (call to f_00): @user_script:13: -MISCONF Redis is configured to": "MISCONF",
    "ERR Error running script (call to f_00): @user_script:13: @user_script: 13: "
    "ERR The user executing the script can't run this command or subcommand": "NOPERM",
    "NOSCRIPT No matching script. Please use EVAL.": "NOSCRIPT",
}
LASTING = (
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR syntax error",
    "ERR unknown command 'FOO', with args beginning with: 'OOM'",
    "ERR Protocol error: invalid bulk length",
    "ERR Error running script (call to f_00): @user_script:3: WRONGTYPE Operation against a key",
    "BUSYGROUP Consumer Group name already exists",
    "BUSYKEY Target key name already exists.",
    "MOVED 3999 127.0.0.1:6381",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "EXECABORT Transaction discarded because of previous errors.",
    "READONLYX is no code",
)


def answer(text: str) -> Exception:
    return BaseParser.parse_error(text)


def in_a_pipeline(error: Exception, command: str) -> Exception:
    """As `redis.client.Pipeline.annotate_exception` does."""
    error.args = (f"Command # 3 ({command}) of pipeline caused error: {error}", *error.args[1:])
    return error


@pytest.mark.parametrize("text", REPLIES)
def test_a_refusal_is_known_alone_and_in_a_pipeline(text: str) -> None:
    for error in (answer(text), in_a_pipeline(answer(text), "HSET rq:job:x data WRONGTYPE")):
        assert refusal(error) == REPLIES[text]
        assert unavailable(error) == "refuses"


@pytest.mark.parametrize("text", LASTING)
def test_an_error_that_lasts_is_none_whatever_the_command_held(text: str) -> None:
    for error in (answer(text), in_a_pipeline(answer(text), "HSET rq:job:x data 'OOM READONLY'")):
        assert refusal(error) == ""
        assert unavailable(error) is None


@given(st.text(max_size=40))
def test_what_a_user_stored_is_no_refusal(data: str) -> None:
    error = in_a_pipeline(answer("WRONGTYPE Operation against a key"), f"SET x {data}")
    assert unavailable(error) is None
    assert described(error) == "WRONGTYPE Operation against a key", "the command is not shown"


@pytest.mark.parametrize(
    "error",
    [redis_errors.ConnectionError("gone"), redis_errors.TimeoutError(), redis_errors.MaxConnectionsError("many")],
)
def test_a_lost_connection_is_away(error: Exception) -> None:
    assert unavailable(error) == "away"


def test_an_error_of_somebody_else_is_neither() -> None:
    assert unavailable(ValueError("OOM")) is None
    assert unavailable(OSError("READONLY")) is None


def test_a_wait_tells_each_reason_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(retrying, "_FIRST_PAUSE_SECONDS", 0.0)
    gone, replica = (
        redis_errors.ConnectionError("gone"),
        answer("READONLY You can't write against a read only replica."),
    )
    answers: list[Any] = [*([gone, replica] * 50), 7]

    def step() -> int:
        value = answers.pop(0)
        if isinstance(value, Exception):
            raise value
        return int(value)

    assert until_redis_answers(step, "commit job x") == 7
    assert caplog.messages[:2] == [
        "Redis does not answer (gone): waiting for it to commit job x",
        "Redis refuses (READONLY You can't write against a read only replica.): waiting for it to commit job x",
    ]
    assert len(caplog.messages) == 3
    assert caplog.messages[2].startswith("Redis no longer refuses after ")


def test_what_lasts_is_raised_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def step() -> None:
        raise answer("WRONGTYPE Operation against a key holding the wrong kind of value")

    with caplog.at_level(logging.DEBUG), pytest.raises(redis_errors.ResponseError, match="wrong kind"):
        until_redis_answers(step, "commit job x")
    assert caplog.messages == []
