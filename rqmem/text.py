"""Bars, sparklines, spans of time, short ids and texts of others, as plain text. Pure."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"
_ASCII_HEIGHTS = "_.:-=+*#"
_NOT_ASCII = re.compile(r"[^\n\x20-\x7e]")


def bar(fraction: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of ``width`` columns, filled so far from the left.

    It is empty for 0 (and below, and what is no number) only, and full from 1 on only: what is nearly full looks so.
    """
    if width <= 0:
        return ""
    inside = min(1.0, max(0.0, fraction)) if not math.isnan(fraction) else 0.0
    if ascii_only:
        filled = int(inside * width) or (inside > 0)
        return "#" * filled + "." * (width - filled)
    eighths = int(inside * width * 8) or (inside > 0)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float | None], width: int, *, top: float | None = None, ascii_only: bool = False) -> str:
    """The values as heights of characters, the newest at the right, in ``width`` columns.

    Where there are more values than columns, a column shows the highest of its values, so that no peak is lost.

    Args:
        values: oldest first; None: a gap, shown as a blank.
        top: what the highest character stands for; None: the highest value. More than that looks as that.
    """
    heights = _ASCII_HEIGHTS if ascii_only else _HEIGHTS
    columns = _columns(values, width)
    highest = max((value for value in columns if value is not None), default=0.0) if top is None else top
    return "".join(" " if value is None else heights[_level(value, highest)] for value in columns).rjust(max(0, width))


def span(seconds: float) -> str:
    """``0.4 s``, ``14 s``, ``3 min``, ``2 h``, ``5 d``: a span of time in its largest unit, at most seven columns."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


class _Escapes(dict[int, str]):
    """Code point -> how it is shown. As `str.translate` takes it, which is quick with many MB."""

    def __missing__(self, code: int) -> str:
        each = chr(code)
        self[code] = shown = each if each.isprintable() else each.encode("unicode_escape").decode()
        return shown


_escapes = _Escapes()


def printable(text: str) -> str:
    """The text on one line, with what would move a cursor, begin a line or turn the direction of reading as an escape.

    Names, operations and errors come from users' code, or from whoever may write to Redis. Lone surrogates are escaped
    too (they stand for bytes of a file's name). Twice is the same as once.
    """
    return text if text.isprintable() else text.translate(_escapes)


def shortened(text: str, most: int = 10_000) -> str:
    """The text; where it has more characters than that, its beginning, and how many it has."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def json_text(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """The value as JSON in which every character can be printed: the others are JSON's own escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=default)
    return _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def _columns(values: Sequence[float | None], width: int) -> list[float | None]:
    count = min(len(values), max(0, width))
    bounds = [len(values) * column // count for column in range(count + 1)] if count else []
    groups = [values[begin:end] for begin, end in itertools.pairwise(bounds)]
    return [max((value for value in group if value is not None), default=None) for group in groups]


def _level(value: float, highest: float) -> int:
    if not (highest > 0 and value > 0):
        return 0
    return min(len(_HEIGHTS) - 1, int(value / highest * len(_HEIGHTS)))


def first_parent(job_id: str) -> str:
    """Of a child, or a child's child, the job that split first; of any other job itself."""
    return job_id.partition("-child-")[0]


def short_id(job_id: str) -> str:
    """Enough of a job's id to know it by in a line, and of a child (`rqmem.store.ledger.child_id`) also which one."""
    parent, child, numbers = job_id.partition("-child-")
    return parent[:8] + child + numbers
