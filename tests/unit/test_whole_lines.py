"""Signal handlers log at any moment: no line is lost, torn or doubled, and nothing is printed about it."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqmem.log.whole_lines import InTurn, LineWriter, keep_lines_whole
from tests.conftest import ROOT

# Logs and prints without end to a pipe that is nearly always full, while a timer's handler logs too.
LOGS = """
import logging, signal, sys
from rqmem import log
how, raises, path = sys.argv[1], sys.argv[2] == "raises", sys.argv[3]
logger = logging.getLogger("rq.worker")
if how == "borrowed from RQ":
    from rq.logutils import setup_loghandlers
    setup_loghandlers("INFO")
    log.borrow_handlers()
elif how == "configured by the user":
    log.configure("info", "text")
    log.configure_by({
        "version": 1, "root": {"level": "INFO", "handlers": ["err", "file"]},
        "formatters": {"f": {"format": "%(message)s"}},
        "handlers": {
            "err": {"class": "logging.StreamHandler", "formatter": "f"},
            "file": {"class": "logging.FileHandler", "formatter": "f", "filename": path},
        },
    }, "settings")
else:
    log.configure("info", how if how in ("text", "json") else "text", path if how == "file" else None)

from rq.timeouts import JobTimeoutException
class Enough(JobTimeoutException):
    pass

signals = 0
def handler(number, frame):
    global signals
    signals = own = signals + 1  # another signal may come in here
    logger.error("signal %d %s end", own, "s" * (own * 37 % 6000))
    while frame.f_back and frame.f_back.f_back:
        frame = frame.f_back
    if raises and own % 3 == 0 and frame.f_code.co_name == "error":  # only where it is caught
        raise Enough

signal.signal(signal.SIGALRM, handler)
lines = 0
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0004)
while signals < 250:
    try:
        lines += 1
        logger.error("main %d %s end", lines, "m" * (lines * 41 % 9000))
        if lines % 5 == 0:
            print("printed", file=sys.stderr)
    except Enough:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)  # not SIG_IGN: Python prints a traceback if a signal has just come
print("counted", lines, signals, file=sys.stdout)
"""
ARRANGEMENTS = ("text", "json", "file", "borrowed from RQ", "configured by the user")


@pytest.mark.parametrize("raises", ["raises", "returns"])
@pytest.mark.parametrize("how", ARRANGEMENTS)
def test_a_log_call_in_a_signal_handler_costs_no_line(how: str, raises: str, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    output = tmp_path / "output"
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with output.open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", LOGS, how, raises, path], cwd=ROOT, stdout=stdout, stderr=writing
        )
    os.close(writing)
    with os.fdopen(reading, "rb") as stderr:
        text = b"".join(iter(lambda: stderr.read(3000), b"")).decode()
    assert process.wait() == 0, text[-2000:]
    counted, signals = map(int, output.read_text().split()[1:])
    assert "Traceback" not in text and "Logging error" not in text, text[-2000:]
    _check(path.read_text() if how == "file" else text, counted, signals, raises == "raises")
    if how == "configured by the user" and raises == "returns":
        _check(path.read_text(), counted, signals, False)


def _check(text: str, counted: int, signals: int, raises: bool) -> None:
    seen: dict[str, list[int]] = {"main": [], "signal": []}
    for line in text.replace("printed\n", "").splitlines():
        message = json.loads(line)["message"] if line.startswith("{") else line
        found = re.search(r"(main|signal) (\d+) (m*|s*) end$", message)
        assert found, f"torn: {line[:80]!r} ... {line[-80:]!r}"
        kind, number, filling = found[1], int(found[2]), found[3]
        assert len(filling) == (number * 41 % 9000 if kind == "main" else number * 37 % 6000)
        seen[kind].append(number)
    for kind, count in (("main", counted), ("signal", signals)):
        if raises:  # an exception may come before the line does
            assert len(seen[kind]) == len(set(seen[kind])) > count / 10
        else:
            assert sorted(seen[kind]) == list(range(1, count + 1))


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("rqmem", logging.INFO, "", 0, text, None, None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, Any]]:
    """A pipe's reading end, which does not wait, and a stream on its writing end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    os.close(reading)


def on(stream: Any) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    keep_lines_whole(handler)
    return handler


def test_a_pipe_that_takes_nothing_now_is_waited_for(pipe: tuple[int, Any]) -> None:
    reading, stream = pipe
    os.set_blocking(reading, True)
    os.set_blocking(stream.fileno(), False)
    handler = on(stream)
    writing = threading.Thread(target=lambda: [handler.handle(record(f"{n} {'x' * 5000}")) for n in range(20)])
    writing.start()
    with os.fdopen(reading, "rb", closefd=False) as source:
        lines = [source.readline().decode() for _ in range(20)]
    writing.join()
    assert lines == [f"{n} {'x' * 5000}\n" for n in range(20)]


CLOSED = """
import logging, os, sys
from rqmem import log
log.configure("info", "text")
logging.getLogger("rqmem").addHandler(kept := log.setup._log_file(sys.argv[1]))
for number in range(5):
    logging.getLogger("rqmem.test").info("line %d", number)
"""


@pytest.mark.parametrize("how", ["a pipe that nobody reads", "no descriptor"])
def test_a_closed_stderr_ends_nobody_and_costs_other_handlers_nothing(how: str, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", CLOSED, str(path)]
    if how == "no descriptor":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(command, cwd=ROOT, stderr=writing, stdout=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "")
    assert path.read_text().splitlines() == [f"line {number}" for number in range(5)]


def test_what_could_not_be_written_is_counted_once_it_can(pipe: tuple[int, Any], capfd: Any) -> None:
    reading, stream = pipe
    handler = on(stream)
    whole = os.dup(stream.fileno())
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, stream.fileno())
    for text in ("lost", "lost too"):
        handler.handle(record(text))
    os.dup2(whole, stream.fileno())
    os.close(whole)
    os.close(full)
    handler.handle(record("written"))
    assert os.read(reading, 1000).decode() == "2 lines before this one could not be written\nwritten\n"
    assert re.fullmatch(r"rqmem: log \d+ cannot be written \(No space left on device\); .*\n", capfd.readouterr().err)


def test_a_stream_without_a_descriptor_gets_the_lines_in_order() -> None:
    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if text == "first\n":
                handler.handle(record("of a signal handler"))
            return super().write(text)

    stream = Interrupted()
    handler = on(stream)
    handler.handle(record("first"))
    assert stream.getvalue() == "first\nof a signal handler\n"


def test_what_the_program_printed_before_stands_before_the_line(pipe: tuple[int, Any]) -> None:
    reading, stream = pipe
    stream.write("printed, ")
    on(stream).handle(record("größe \ud800"))
    assert os.read(reading, 1000).decode() == "printed, größe \\ud800\n"


def test_a_fork_does_not_write_the_line_that_its_parent_is_at() -> None:
    forked = 0
    done: list[str] = []

    def do(item: str) -> None:
        nonlocal forked
        if item == "of a thread":
            forked = in_a_child()
        done.append(item)

    def in_a_child() -> int:
        if pid := os.fork():
            return pid
        turn("of the child")
        os._exit(0 if done == ["of the child"] else 1)

    turn = InTurn(do)
    thread = threading.Thread(target=lambda: turn("of a thread"))
    thread.start()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert done == ["of a thread"]


def test_a_line_that_an_exception_cut_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = b""

    def in_bits(fd: int, data: bytes) -> int:
        nonlocal written
        if len(written) == 6:
            written += data[:1]
            raise KeyboardInterrupt  # before anything was written, as when a signal interrupts the call
        written += data[:3]
        return len(data[:3])

    writer = LineWriter(1, "log", str)
    monkeypatch.setattr(os, "write", in_bits)
    with pytest.raises(KeyboardInterrupt):
        writer.write("one line")
    written = written[:6] + b"|"
    writer.write("another")
    assert written == b"one li|ne\nanother\n"
