from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rq import Queue, Worker

from rqmem.connection import embedded
from rqmem.connection.connect import choose_url, connect, mask
from rqmem.errors import ConfigError, RedisUnavailable


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP port that takes connections (into its backlog) and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def speak(listener: socket.socket) -> Iterator[Callable[[bytes], None]]:
    """Make the listener answer whoever connects with given bytes."""
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)

    def start(answer: bytes) -> None:
        threads.append(threading.Thread(target=serve, args=(answer,)))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(timeout=10)


def url_of(server: socket.socket) -> str:
    return f"redis://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("url", "environ", "chosen"),
    [
        ("redis://a", {"RQMEM_REDIS_URL": "redis://b", "REDIS_URL": "redis://c"}, ("redis://a", "--url")),
        (None, {"RQMEM_REDIS_URL": "redis://b", "REDIS_URL": "redis://c"}, ("redis://b", "RQMEM_REDIS_URL")),
        (None, {"RQ_REDIS_URL": "redis://b", "REDIS_URL": "redis://c"}, ("redis://b", "RQ_REDIS_URL")),
        (None, {"RQMEM_REDIS_URL": "redis://a", "RQ_REDIS_URL": "redis://b"}, ("redis://a", "RQMEM_REDIS_URL")),
        (None, {"REDIS_URL": "redis://c\n"}, ("redis://c", "REDIS_URL")),
        ("", {"RQMEM_REDIS_URL": " ", "REDIS_URL": "redis://c"}, ("redis://c", "REDIS_URL")),
        ("", {"RQMEM_REDIS_URL": "", "REDIS_URL": ""}, None),
        (None, {}, None),
    ],
)
def test_order_of_choice(url: str | None, environ: dict[str, str], chosen: tuple[str, str] | None) -> None:
    choice = choose_url(url, environ)
    assert (choice and (choice.url, choice.source)) == chosen


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "must start with"),
        ("http://h", "must start with"),
        ("redis://h:99999", "port"),
        ("redis://h:0", "port"),
        ("redis://h:x", "port"),
        ("redis://:pass/word@h", "port"),
        ("redis://:pass#word@h", "write # as %23"),
        ("redis://[::1", "cannot be read"),
        ("redis://h/abc", "database number"),
        ("redis://h/1/2", "database number"),
        ("redis://h/-1", "database number"),
        ("redis://h?db=-1", "database number"),
        ("redis://h?db=x", "db"),
        ("unix://relative/redis.sock", "absolute path"),
        ("unix://", "absolute path"),
        ("redis://h?decode_responses=1", "decode_responses"),
        ("redis://h?no_such_option=1", "no_such_option"),
        ("redis://" + "x" * 70, "label"),
    ],
)
@pytest.mark.parametrize("source", ["--url", "RQMEM_REDIS_URL", "REDIS_URL"])
def test_bad_urls_name_their_source_and_reason(
    source: str, url: str, reason: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source != "--url":
        monkeypatch.setenv(source, url)
    with pytest.raises(ConfigError) as caught:
        connect(url if source == "--url" else None)
    message = str(caught.value)
    assert message.startswith(f"{source} '")
    assert reason in message
    assert "\n" not in message
    assert "pass" not in message.replace("in a password", "")


def test_database_out_of_range(project: Path) -> None:
    url = embedded.start().url
    with pytest.raises(ConfigError, match=r"^--url .*DB index is out of range"):
        connect(f"{url}?db=99")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:pw@h:1/2", "redis://:***@h:1/2"),
        ("redis://user:p@w/x@h", "redis://user:***@h"),
        ("redis://pw@h", "redis://***@h"),
        ("user:pw@h", "user:***@h"),
        ("unix:///s?db=1&password=pw&client_name=x", "unix:///s?db=1&password=***&client_name=x"),
        ("rediss://h?ssl_password=pw", "rediss://h?ssl_password=***"),
    ],
)
def test_mask(url: str, masked: str) -> None:
    assert mask(url) == masked


def test_wrong_password_is_not_shown(project: Path) -> None:
    server = embedded.start()
    with connect(server.url) as client:
        client.config_set("requirepass", "right-secret")
    for url in (server.url.replace("unix://", "unix://:wrong-secret@"), server.url):
        with pytest.raises(RedisUnavailable, match=r"refuses us: .*check user and password") as caught:
            connect(url)
        assert "secret" not in str(caught.value)
    with connect(server.url.replace("unix://", "unix://:right-secret@")) as client:
        assert client.ping()


def test_unreachable_port(listener: socket.socket) -> None:
    url = url_of(listener)
    listener.close()
    with pytest.raises(RedisUnavailable, match=rf"^Redis at {url} \(--url\).*[Rr]efused.*; start it, or"):
        connect(url)


def test_unreachable_socket(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match="No such file or directory"):
        connect(f"unix://{tmp_path}/redis.sock")


_TAKES_ANY_OK = pytest.mark.skipif(
    [int(part) for part in redis.__version__.split(".")[:2]] < [8, 1],
    reason="redis-py before 8.1 takes any OK for the answer to its first command, and then finds the connection closed",
)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-x\r\n",
        pytest.param(b"+OK POP3 ready\r\n", marks=_TAKES_ANY_OK),
    ],
)
def test_a_server_that_is_not_redis(answer: bytes, listener: socket.socket, speak: Callable[[bytes], None]) -> None:
    speak(answer)
    with pytest.raises(RedisUnavailable, match="what answers there is not Redis"):
        connect(url_of(listener))


def test_a_server_that_hangs_up(listener: socket.socket, speak: Callable[[bytes], None]) -> None:
    speak(b"")
    with pytest.raises(RedisUnavailable, match=r"[Cc]onnection closed"):
        connect(url_of(listener))


def test_a_password_sent_back_is_not_shown(listener: socket.socket, speak: Callable[[bytes], None]) -> None:
    speak(b"-ERR what is 'top secret'?\r\n")
    with pytest.raises(RedisUnavailable, match=r"what is '\*\*\*'"):
        connect(url_of(listener).replace("redis://", "redis://:top%20secret@"))


def test_a_server_that_never_answers(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rqmem.connection.connect._PROBE_SECONDS", 0.2)
    before = time.monotonic()
    with pytest.raises(RedisUnavailable, match=r"no answer within 0\.2 s"):
        connect(url_of(listener) + "?socket_timeout=60&retry_on_timeout=yes")
    assert time.monotonic() - before < 30


def test_the_embedded_server_is_announced_in_one_line(project: Path) -> None:
    lines: list[str] = []
    with connect(announce=lines.append) as client:
        assert client.ping()
    server = embedded.start()
    assert lines == [
        f"rqmem: using the embedded Redis {server.version} at {server.url} (data in .rqmem/redis); "
        "set RQMEM_REDIS_URL to use another"
    ]


def test_a_library_logs_the_announcement(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rqmem.redis"):
        connect()
    assert [record.levelname for record in caplog.records if "using the embedded" in record.message] == ["INFO"]


def test_a_named_redis_is_not_announced(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQMEM_REDIS_URL", embedded.start().url)
    lines: list[str] = []
    with connect(announce=lines.append) as client:
        assert client.ping()
    assert lines == []


def test_rq_works_with_the_connection(project: Path) -> None:
    connection = connect()
    settings = connection.connection_pool.connection_kwargs
    assert "socket_timeout" not in settings
    assert not settings.get("decode_responses")
    worker = Worker([Queue("default", connection=connection)], connection=connection)
    assert settings["socket_timeout"] == worker.connection_timeout
