"""One kit for text: counts, times, spans, cutting, wrapping, columns, bars, sparklines, names of others. Pure."""

from __future__ import annotations

import itertools
import json
import math
import re
import string
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"
_ASCII_HEIGHTS = "_.:-=+*#"
_NOT_ASCII = re.compile(r"[^\n\x20-\x7e]")
_LONGEST_PARAGRAPH = 2000  # characters

Mood = Literal["plain", "title", "faint", "good", "warning", "bad"]
Part = tuple[str, Mood]
Line = tuple[Part, ...]
"""Parts of a line, each with its mood; `rqmem.live.screen` makes colours of moods."""

# Counts and times


def counted(number: float, thing: str) -> str:
    """``no jobs``, ``1 job``, ``1,200 jobs``, ``2 breaches``."""
    plural = "" if number == 1 else "es" if thing.endswith("ch") else "s"
    return f"{f'{number:,.0f}' if number else 'no'} {thing}{plural}"


def timestamp(at: float) -> str:
    """Epoch seconds as ``2025-08-06T10:30:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


@lru_cache(maxsize=512)  # reports have the same hours and days for each job type
def timestamp_ms(at: float | None) -> str | None:
    """Epoch seconds as ``2025-08-06T10:30:00.250Z``, for JSON; None stays None."""
    return None if at is None else f"{timestamp(at)[:-1]}.{int(at * 1000) % 1000:03}Z"


def clock(at: float) -> str:
    """The local time of day, as ``10:30:00``."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def date_and_clock(at: float) -> str:
    """The local date and time, as ``2025-08-06 10:30:00``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def span(seconds: float) -> str:
    """``0.4 s``, ``14 s``, ``3 min``, ``2 h``, ``5 d``: a span of time in its largest unit, at most seven columns."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def duration(seconds: float) -> str:
    """``4.2 s``, ``12 min 5 s``, ``3 h 0 min`` or ``34 d 3 h``: a span of time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


# Texts and names that others wrote


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
    too (they represent bytes of a file's name). Twice is the same as once.
    """
    return text if text.isprintable() else text.translate(_escapes)


def shortened(text: str, most: int = 10_000) -> str:
    """The text. If it has more than ``most`` characters: its beginning, and how many it has."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def wrapped(text: str, columns: int, *, indent: str = "", whole_words: bool = False) -> list[str]:
    """The text in lines of at most ``columns``, one line at least.

    Args:
        indent: begins each line but the first.
        whole_words: a word that is longer than a line is not broken, so that it can be copied.
    """
    text = printable(shortened(text, _LONGEST_PARAGRAPH))
    return textwrap.wrap(
        text, max(20, columns), subsequent_indent=indent, break_on_hyphens=False, break_long_words=not whole_words
    ) or [""]


def below(left: str, lines: Sequence[str], indent: int) -> list[str]:
    """``left`` and the first line, and the others below that, ``indent`` columns from the left."""
    first, *rest = lines
    return [left + first, *(" " * indent + line for line in rest)]


def listed(names: Sequence[str], most: int) -> str:
    """``a, b, c and 4 more``: the first ``most`` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """``did you mean mail?``, with up to ``most`` names; ``otherwise`` if none of those known is near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=most)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def json_text(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """The value as JSON in which every character can be printed: the others are JSON's own escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=default)
    return _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


# Widths


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns, printable. A longer one ends with an ellipsis."""
    text = printable(text[: max(0, width) + 1])  # a text may have many MB
    if len(text) <= width:
        return text
    return text[: width - 1] + "…" if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """As `cut`, with the ellipsis in the middle: names of workers and job types differ at their end."""
    if len(text) <= width:
        return text
    if width < 5:
        return cut(text, width)
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def cut_names(names: Sequence[str], width: int) -> list[str]:
    """The names in at most ``width`` columns each. What they have in common goes first, so that they still differ."""
    if max(map(len, names), default=0) <= width:
        return list(names)
    begin = _common(names)
    end = _common([name[begin:][::-1] for name in names])
    if len(names) == 1 or begin + end == 0:
        return [cut_middle(name, width) for name in names]
    short = [f"…{name[begin:]}" if begin > 1 else name for name in names]
    if max(map(len, short)) > width and end > 1:
        short = [f"{name[:-end]}…" for name in short]
    return [cut_middle(name, width) for name in short]


def _common(names: Sequence[str]) -> int:
    """How many letters they all begin with, in whole words: ``web-21`` and ``web-29`` have ``web-`` in common."""
    first, last = min(names), max(names)  # the two that differ soonest
    same = sum(itertools.takewhile(bool, (ours == theirs for ours, theirs in zip(first, last, strict=False))))
    return len(first[:same].rstrip(string.ascii_letters + string.digits))


def line(*parts: str | Part) -> Line:
    """A line of texts, each with its mood or none. What cannot be printed becomes an escape."""
    moods: list[Part] = [(part, "plain") if isinstance(part, str) else part for part in parts]
    return tuple((printable(part), mood) for part, mood in moods if part)


def without_moods(of: Line) -> str:
    return "".join(part for part, _ in of)


def fit(of: Line, width: int) -> Line:
    """The line in at most ``width`` columns."""
    parts: list[Part] = []
    left = width
    for part, mood in of:
        shown = cut(part, left)
        if shown:
            parts.append((shown, mood))
        left -= len(part)
        if left < 0:
            break
    return tuple(parts)


def columns(rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Rows of cells as lines, the cells of the columns ``left`` at the left, the others aligned at the right."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = ([f"{cell:{'<' if n in left else '>'}{widths[n]}}" for n, cell in enumerate(row)] for row in cells)
    return ["  ".join(row).rstrip() for row in aligned]


# Pictures


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
        top: the value of the highest character; None: the highest of the values. Higher values look the same.
    """
    heights = _ASCII_HEIGHTS if ascii_only else _HEIGHTS
    columns = _columns(values, width)
    highest = max((value for value in columns if value is not None), default=0.0) if top is None else top
    return "".join(" " if value is None else heights[_level(value, highest)] for value in columns).rjust(max(0, width))


def _columns(values: Sequence[float | None], width: int) -> list[float | None]:
    count = min(len(values), max(0, width))
    bounds = [len(values) * column // count for column in range(count + 1)] if count else []
    groups = [values[begin:end] for begin, end in itertools.pairwise(bounds)]
    return [max((value for value in group if value is not None), default=None) for group in groups]


def _level(value: float, highest: float) -> int:
    if not (highest > 0 and value > 0):
        return 0
    return min(len(_HEIGHTS) - 1, int(value / highest * len(_HEIGHTS)))
