"""How the text of a setting or an option is read. Pure.

Each parser takes the text and the name of what it was given for (option, variable or line of a file). For a value that
cannot be used it raises `ConfigError` with the name, the value and what to give instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rqmem.errors import ConfigError

Parser = Callable[[str, str], Any]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST_SECONDS = 100 * 365 * 86400  # Redis and Python take no more
_AS_IN = "as in 90s, 10m, 2h or 3d"


def number(unit: str, example: str, *, or_zero: bool = False) -> Callable[[str, str], float]:
    """A parser for a number above 0, or of at least 0."""

    def parse(text: str, name: str) -> float:
        value = _number(text)
        if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
            least = "of at least 0" if or_zero else "greater than 0"
            raise ConfigError(f"{name}={text!r}: give a number of {unit} {least}, for example {example}")
        return value

    return parse


class OneOf:
    """A parser for a setting with a few values, each with its meaning."""

    def __init__(self, **meanings: str) -> None:
        self.meanings = meanings

    def __call__(self, text: str, name: str) -> str:
        if text not in self.meanings:
            raise ConfigError(f"{name}={text!r}: give {self}")
        return text

    def __str__(self) -> str:
        return " or ".join(f"{value} ({meaning})" for value, meaning in self.meanings.items())


def positive_int(text: str, name: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"{name}={text!r}: give a whole number of at least 1")
    return value


def whole_number(text: str, name: str) -> int:
    """A whole number of at least 0."""
    if not re.fullmatch(r"\s*\d{1,9}\s*", text):
        raise ConfigError(f"{name}={text!r}: give a whole number of at least 0")
    return int(text)


def fraction(text: str, name: str) -> float:
    """A fraction above 0, at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise ConfigError(f"{name}={text!r}: give a fraction of the ceiling between 0 and 1, for example 0.8")
    return value


def boolean(text: str, name: str) -> bool:
    """true or false, also as 1, yes, on and 0, no, off."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{name}={text!r}: give true or false")


def names(text: str, name: str) -> tuple[str, ...]:
    """Names with commas or spaces between them."""
    return tuple(text.replace(",", " ").split())


def words(text: str, name: str) -> tuple[str, ...]:
    """Words with spaces between them."""
    return tuple(text.split())


def path(text: str, name: str) -> str:
    """The text as it is."""
    return text


# Times


def duration(text: str, name: str) -> float:
    """A time above 0 in seconds: ``90s``, ``10m``, ``2h``, ``3d``, ``2w``, or a plain number of seconds."""
    value = _seconds(text)
    if not value > 0:
        raise ConfigError(f"{name}={text!r}: give a time above 0, {_AS_IN}")
    return _bounded(value, text, name)


def whole_seconds(text: str, name: str, least: int = 1, unlimited: str = "") -> int | None:
    """The same in whole seconds, at least ``least``. None if the text is ``unlimited``."""
    if unlimited and text.strip().lower() == unlimited:
        return None
    value = _seconds(text)
    if not (value >= least and value % 1 == 0):
        more = f", or {unlimited} for no limit" if unlimited else ""
        raise ConfigError(f"{name}={text!r}: give whole seconds, at least {least}, {_AS_IN}{more}")
    return int(_bounded(value, text, name))


def seconds_or_no_limit(text: str, name: str, least: int = 0) -> int:
    """The same; -1 stays -1, which RQ takes for no limit."""
    value = whole_seconds(text, name, least, "-1")
    return -1 if value is None else value


def moment(text: str, name: str, now: float) -> float:
    """A moment that has passed, in epoch seconds; 0 if it is before 1970.

    The text says how long ago, as a duration, or is a date or time in ISO form: ``2026-08-06``,
    ``2026-08-06T10:30``, ``2026-08-06T10:30:00Z``. Without a zone it is local time; eight digits are a date.
    """
    ago = _seconds(text)
    if ago >= 0 and not re.fullmatch(r"\d{8}", text.strip()):
        return max(0.0, now - ago)
    try:
        at = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip())).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"{name}={text!r}: give how long ago, as in 90s, 30m, 24h, 7d or 2w, or a date or time, as in "
            f"2026-08-06 or 2026-08-06T10:30"
        ) from None
    if at > now:
        raise ConfigError(f"{name}={text!r}: that lies ahead; give a time that has passed")
    return max(0.0, at)


def _seconds(text: str) -> float:
    """NaN for what is no duration."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smhdw]?)", text.strip().lower())
    return float(found[1]) * _UNITS[found[2] or "s"] if found else math.nan


def _bounded(seconds: float, text: str, name: str) -> float:
    if seconds > _MOST_SECONDS:
        raise ConfigError(f"{name}={text!r}: that is more than 100 years, which Redis or Python do not take")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
