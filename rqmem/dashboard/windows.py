"""The time that a page is about, as its URL says: ``?window=24h``. Pure."""

from __future__ import annotations

from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from rqmem.values import dataclass


@dataclass(frozen=True)
class Window:
    """A span of time until now. ``by_day``: it has days, else hours."""

    name: str
    words: str
    seconds: float
    by_day: bool = False


WINDOWS = [
    Window("1h", "last hour", HOUR_SECONDS),
    Window("24h", "last 24 hours", DAY_SECONDS),
    Window("7d", "last 7 days", 7 * DAY_SECONDS, by_day=True),
    Window("30d", "last 30 days", 30 * DAY_SECONDS, by_day=True),
]


def chosen(name: str, otherwise: str = "24h") -> Window:
    """The window of that name; another name is taken for the usual one."""
    known = {each.name: each for each in WINDOWS}
    return known.get(name, known[otherwise])
