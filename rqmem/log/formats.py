"""The two formats a line can have: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

from rqmem.log.lines import timestamp

LogFormat = Literal["text", "json"]


class TextFormatter(logging.Formatter):
    """``12:30:05 text``, warnings and errors marked as such; ``dated``, for what is read days later: with the day."""

    def __init__(self, *, dated: bool = False) -> None:
        super().__init__()
        self._clock = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime(self._clock, time.localtime(record.created))
        mark = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        return f"{clock} {mark}{_with_traceback(self, record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: an event's fields, or the message of any other line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "rqmem", None)
        if fields is None:
            fields = {
                "level": record.levelname,
                "logger": record.name,
                "message": _with_traceback(self, record),
                "timestamp": timestamp(record.created),
            }
        return json.dumps(fields, ensure_ascii=False, default=str)


def formatter(log_format: LogFormat, *, dated: bool = False) -> logging.Formatter:
    """The formatter of that name."""
    return JsonFormatter() if log_format == "json" else TextFormatter(dated=dated)


def _with_traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + formatter.formatException(record.exc_info)
    return text
