"""What Redis has under our names, or RQ's, that cannot be read: it is left out, and noted for whoever shows the rest.

One damaged record must not hide all others. Readers of many records pass them through `readable`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

_noted: ContextVar[dict[str, None] | None] = ContextVar("unreadable", default=None)
_log = logging.getLogger("rqmem.store")


def begin() -> None:
    """Notes of this thread are kept from now on, and earlier ones are forgotten."""
    _noted.set({})


def found() -> list[str]:
    """What has been noted since `begin`, each once."""
    return list(_noted.get() or ())


def note(what: str) -> None:
    """``what``: a key or a kind of record that could not be read. Where nobody keeps notes, it is logged once."""
    kept = _noted.get()
    if kept is None:
        _log_once(what)
    else:
        kept[what] = None


def readable(read: Callable[[A], T], raw: Iterable[A], what: str) -> list[T]:
    """What ``read`` makes of each, without those of which it cannot make anything; ``what``: they are, for the note."""
    made = []
    for each in raw:
        try:
            made.append(read(each))
        except (ValueError, TypeError, LookupError, AttributeError):
            note(what)
    return made


@cache
def _log_once(what: str) -> None:
    _log.warning("a record in %s in Redis cannot be read and is left out", what)
