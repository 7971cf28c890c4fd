"""Whole lines in the log, though a signal handler may log while the program is in the middle of a line.

Python runs a signal handler between any two instructions, and also inside a write that waits, as on a full pipe. If it
logs then, the stream it needs is in use: Python raises ``RuntimeError: reentrant call``, and the line is lost.

* `InTurn` keeps what a signal handler brings until what it interrupted is done.
* `LineWriter` writes lines to a descriptor. It needs no buffer of Python, so a `print` that was interrupted is no
  obstacle. If a signal handler raises in the middle of a line, the next call continues where that line stopped.
* `keep_lines_whole` gives a handler of `logging` these two.

A descriptor that takes nothing (a full pipe) is waited for. Lines for one that fails (a full disk, a pipe that nobody
reads) are lost, which ends nobody; the next line that can be written says how many are missing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

_STDERR = 2

Item = TypeVar("Item")


class InTurn(Generic[Item]):
    """Calls ``do`` with one item after another. Call it under a lock, such as the one of a `logging.Handler`.

    If ``do`` is interrupted by an exception, its item stays, and the next call does it again, before others.
    """

    def __init__(self, do: Callable[[Item], None]) -> None:
        self._do = do
        self._reset()

    def _reset(self) -> None:
        self._items: deque[Item] = deque()
        self._busy = 0  # the thread that is at it
        self._pid = os.getpid()

    def __call__(self, item: Item) -> None:
        """Do it now; in a signal handler that interrupted another call: as soon as that one is done."""
        if self._pid != os.getpid():  # a fork: what was under way is the parent's to finish
            self._reset()
        self._items.append(item)
        self.go_on()

    def go_on(self) -> None:
        """Do what an exception left undone."""
        while self._items and self._busy != threading.get_ident():
            items = self._items
            try:
                self._busy = threading.get_ident()
                while items:
                    self._do(items[0])
                    items.popleft()
            finally:
                self._busy = 0  # a signal may come before this: hence the outer loop


class _Line:
    def __init__(self, text: str, encoding: str) -> None:
        self.text = text
        self.encoding = encoding
        self.data = b""
        self.sent: list[int] = []


class LineWriter:
    """Writes whole lines to a descriptor, with one `os.write` each unless it takes less.

    Args:
        fd: the descriptor; it may be replaced at any time.
        name: for people, in complaints.
        missing: makes the line that says how many lines are missing.
    """

    def __init__(self, fd: int, name: str, missing: Callable[[int], str]) -> None:
        self.fd = fd
        self._name = name
        self._missing = missing
        self._lines = InTurn(self._write_line)
        self._lost = 0
        self._torn = False  # a line was written in part
        self._troubles: set[str] = set()  # those that stderr has been told of, and that last

    def write(self, line: str, encoding: str = "utf-8") -> None:
        """Write this line, which comes without its end. What cannot be encoded is written as an escape."""
        self._lines(_Line(line, encoding))

    def finish(self) -> None:
        """Write what the exception of a signal handler left unwritten."""
        self._lines.go_on()

    def complain(self, trouble: str, what: str) -> None:
        """Say so on stderr, once until it is over; where `logging` may complain at all."""
        if trouble in self._troubles or not logging.raiseExceptions or self.fd == _STDERR:
            return
        self._troubles.add(trouble)
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"rqmem: {self._name} {what}\n".encode(errors="backslashreplace"))

    def is_over(self, trouble: str) -> None:
        self._troubles.discard(trouble)

    def _write_line(self, line: _Line) -> None:
        if not line.data:
            missing = f"{self._missing(self._lost)}\n" if self._lost else ""
            text = f"{missing}{line.text}\n".encode(line.encoding, errors="backslashreplace")
            line.data = b"\n" + text if self._torn else text
        try:
            while (at := sum(line.sent)) < len(line.data):
                try:
                    # In C from the write to the list: no signal handler can raise between the two.
                    line.sent.extend(map(os.write, (self.fd,), (line.data[at:],)))
                except BlockingIOError:
                    _wait_until_writable(self.fd)
        except OSError as error:
            self._lost += 1
            self._torn = self._torn or bool(line.sent)
            self.complain("writing", f"cannot be written ({error.strerror}); lines are lost until it can")
            return
        self._lost, self._torn = 0, False
        self.is_over("writing")


def keep_lines_whole(handler: logging.Handler) -> None:
    """From now on, a signal handler may use this handler at any moment.

    A `logging.StreamHandler` (RQ's is one) writes whole lines to its stream's descriptor. Without a descriptor, and
    with any other handler that `logging` locks, a record that comes in the middle of another is handled after it.
    What a signal handler of RQ raises gets through to where it is waited for.
    """
    kind = type(handler)
    if kind.handle is not logging.Handler.handle or handler.lock is None or "emit" in vars(handler):
        return
    if isinstance(getattr(handler, "writer", None), LineWriter):
        return
    handler.handleError = partial(handle_error, handler.handleError)  # type: ignore[method-assign]
    if kind.emit is logging.StreamHandler.emit:
        to_stream = _ToStream(handler)  # type: ignore[arg-type]
        handler.emit = to_stream  # type: ignore[method-assign]
        handler.flush = to_stream.finish  # type: ignore[method-assign]
    else:
        handler.emit = _once_in_turn(handler.emit)  # type: ignore[assignment]


def handle_error(of_logging: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    """`logging.Handler.handleError`, but for a request to stop and a time limit: those are raised again.

    Raises:
        Exception: a signal handler of RQ raised it in the middle of a log call.
    """
    error = sys.exc_info()[1]
    if any(kind.__module__.partition(".")[0] == "rq" for kind in type(error).__mro__):
        raise
    with contextlib.suppress(RuntimeError):  # a signal interrupted a write to stderr
        of_logging(record)


def missing_line(handler: logging.Handler, lost: int) -> str:
    """The line that says how many lines are missing, in the handler's format."""
    words = "%d lines before this one could not be written"
    return handler.format(logging.LogRecord("rqmem.log", logging.WARNING, "", 0, words, (lost,), None))


class _ToStream:
    """`logging.StreamHandler.emit` and ``flush`` of one handler."""

    def __init__(self, handler: logging.StreamHandler[Any]) -> None:
        self._handler = handler
        self._flush = handler.flush
        name = f"log {getattr(handler.stream, 'name', '')}".rstrip()
        self._writer = LineWriter(-1, name, lambda lost: missing_line(handler, lost))
        self._without_descriptor = _once_in_turn(handler.emit)

    def __call__(self, record: logging.LogRecord) -> None:
        stream = self._handler.stream
        fd = _descriptor(stream)
        if fd is None:
            self._without_descriptor(record)
            return
        try:
            line = self._handler.format(record)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  as every handler of logging: a bad format string ends nobody
            self._handler.handleError(record)
            return
        if not stream.line_buffering:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # the last: a signal interrupted its use
                stream.flush()  # what the program printed before this line
        self._writer.fd = fd
        self._writer.write(line + self._handler.terminator.removesuffix("\n"), stream.encoding or "utf-8")

    def finish(self) -> None:
        self._handler.acquire()
        try:
            self._writer.finish()
            with contextlib.suppress(RuntimeError):
                self._flush()
        finally:
            self._handler.release()


def _once_in_turn(emit: Callable[[logging.LogRecord], None]) -> Callable[[logging.LogRecord], None]:
    """``emit``, for a record after the other. It is not done again: nobody knows how far it came."""

    def emit_once(box: list[logging.LogRecord]) -> None:
        while box:
            emit(box.pop())

    in_turn = InTurn(emit_once)
    return lambda record: in_turn([record])


def _descriptor(stream: Any) -> int | None:
    """Where a stream of Python's `open` writes; None for another, which may do more than write."""
    buffer = getattr(stream, "buffer", None)
    raw = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer
    return raw.fileno() if isinstance(raw, io.FileIO) and not raw.closed else None


def _wait_until_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
