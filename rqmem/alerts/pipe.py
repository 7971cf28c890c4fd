"""What a sender tells the worker that started it, one line each over its stdout: that it is ready, or why it is not,
and what it logs, which the worker writes to its own log."""

from __future__ import annotations

import logging
import sys

from rqmem.text import printable

READY, REFUSED = "READY", "REFUSED"


class ToWorker(logging.Handler):
    """Log lines for the worker."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.levelname, record.getMessage())


def say(word: str, text: str = "") -> None:
    """A line for the worker; one that is gone hears nothing."""
    try:
        sys.stdout.write(f"{word} {printable(' '.join(text.split()))}\n")
        sys.stdout.flush()
    except OSError:
        pass


def heard(line: str) -> tuple[str, str]:
    """The word of a line, `READY`, `REFUSED` or a level of `logging`, and its text."""
    word, _, text = line.strip().partition(" ")
    return word, text
