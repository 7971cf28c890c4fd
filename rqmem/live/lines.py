"""Lines of text whose parts have a mood, cut to a width. Pure; moods become colours in `rqmem.live.screen`."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Sequence
from typing import Literal

from rqmem.text import printable

Mood = Literal["plain", "title", "faint", "good", "warning", "bad"]
Part = tuple[str, Mood]
Line = tuple[Part, ...]


def line(*parts: str | Part) -> Line:
    """A line of texts, each with its mood or none; what cannot be printed in them is an escape."""
    moods: list[Part] = [(part, "plain") if isinstance(part, str) else part for part in parts]
    return tuple((printable(part), mood) for part, mood in moods if part)


def text(of: Line) -> str:
    """A line without moods."""
    return "".join(part for part, _ in of)


def cut(text: str, width: int) -> str:
    """The text in at most so many columns; where it is longer, it ends with an ellipsis."""
    if len(text) <= width:
        return text
    return text[: width - 1] + "…" if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """The same with the ellipsis in the middle: names of workers differ at their end, job types too."""
    if len(text) <= width:
        return text
    if width < 5:
        return cut(text, width)
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def shortened(names: Sequence[str], width: int) -> list[str]:
    """The names in at most so many columns each; what they have in common goes first, so that they stay apart."""
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


def fit(of: Line, width: int) -> Line:
    """A line in at most so many columns."""
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


def columns(rows: Iterable[list[str]], gap: int = 2) -> list[str]:
    """Rows of cells as lines, the first cell of each row at the left, the others aligned at the right."""
    cells = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)] if cells else []
    return [
        (" " * gap).join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
