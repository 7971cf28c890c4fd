"""The two formats a line can have: text for people, JSON for programs.

No text that a record carries can look like a record of its own: control characters in its arguments are shown as
escapes, and further lines of its message or traceback are indented.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rqmem.text import json_text, printable, timestamp

LogFormat = Literal["text", "json"]

_who = ""

_TRACEBACK = "Traceback (most recent call last):\n"  # RQ gives one as an argument: it stays readable, and is indented
_COLOURED_BY_RQ = re.compile(r"\x1b\[\d\d(?:;01)?m(.*)\x1b\[39;49;00m", re.DOTALL)  # on a terminal


def say_who(name: str) -> None:
    """From now on, each line of this process names this worker, if it does not do so by itself."""
    global _who
    _who = name


class TextFormatter(logging.Formatter):
    """``12:30:05 text``, warnings and errors marked as such; ``dated``, for what is read days later: with the day."""

    def __init__(self, *, dated: bool = False, date_format: str | None = None) -> None:
        super().__init__()
        self._clock = date_format or ("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime(self._clock, time.localtime(record.created))
        mark = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        message = record.getMessage() if hasattr(record, "rqmem") else _message(record)
        first, *more = f"{message}{_traceback(self, record)}".split("\n")
        who = f"[{_who}] " if _who and _who not in first else ""
        return _indented([f"{clock} {mark}{who}{first}", *more])


class OwnFormatter(logging.Formatter):
    """A format of Python's `logging`, as RQ's ``--log-format`` takes it; what follows the first line is indented."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)
        shown.msg, shown.args = record.getMessage() if hasattr(record, "rqmem") else _message(record), ()
        return _indented(super().format(shown).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: an event's fields, or the message of any other line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "rqmem", None)
        if fields is None:
            fields = {
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage() + _traceback(self, record),
                "timestamp": timestamp(record.created),
                **({"worker": _who} if _who else {}),
            }
        return json_text(fields, default=str)


def formatter(log_format: str, *, dated: bool = False, date_format: str | None = None) -> logging.Formatter:
    """The formatter of that name (`LogFormat`), or one with that format of Python's `logging`."""
    if log_format not in ("text", "json"):
        return OwnFormatter(log_format, date_format)
    return JsonFormatter() if log_format == "json" else TextFormatter(dated=dated, date_format=date_format)


def _message(record: logging.LogRecord) -> str:
    """The message with each argument in one line."""
    if not record.args:
        return record.getMessage()
    shown = copy.copy(record)
    given = record.args
    if isinstance(given, Mapping):
        shown.args = {name: _in_one_line(value) for name, value in given.items()}
    else:
        shown.args = tuple(_in_one_line(value) for value in given)
    return shown.getMessage()


def _indented(lines: Iterable[str]) -> str:
    """The lines, all printable, with two spaces before each but the first."""
    return "\n  ".join(map(printable, lines))


class _InOneLine:
    """An argument that is no number: its texts without line breaks and control characters."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        text = str(self._value)
        if text.startswith(_TRACEBACK):
            return text.rstrip("\n")
        coloured = _COLOURED_BY_RQ.fullmatch(text)
        return printable(text if coloured is None else coloured[1])

    def __repr__(self) -> str:
        return printable(repr(self._value))


def _in_one_line(value: Any) -> Any:
    return value if isinstance(value, int | float) else _InOneLine(value)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""
