"""Where the monitor shows what it sees: lines in a pipe, or a terminal's whole screen by rich (extra ``tui``)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rqmem import words
from rqmem.live import plain
from rqmem.live.record import News, Record
from rqmem.live.view import Frame, view
from rqmem.text import Line, Mood, clock

if TYPE_CHECKING:
    from rich.text import Text

_STYLES: dict[Mood, str] = {
    "plain": "", "title": "bold", "faint": "dim", "good": "green", "warning": "bold yellow", "bad": "bold red",
}  # fmt: skip


class OutputClosed(Exception):
    """Nothing can be shown any more: the pipe is closed, the terminal is gone, or the disk is full."""


Show = Callable[[Record, News, float, str], None]
"""Shows the state at a time, what is new since the last time, and a notice. Raises `OutputClosed`."""


@contextmanager
def closed_is_said() -> Iterator[None]:
    """What cannot be written in the block raises `OutputClosed`."""
    try:
        yield
    except OSError as error:
        raise OutputClosed(str(error)) from error


class PlainDisplay:
    """Prints what is new at once, and the whole state every ``interval_seconds``. ``write`` prints one line."""

    def __init__(self, interval_seconds: float, write: Callable[[str], None]) -> None:
        self._interval = interval_seconds
        self._print = write
        self._next_at = float("-inf")
        self._notice = ""
        self._was_away = False

    def show(self, record: Record, news: News, now: float, notice: str = "") -> None:
        away = record.away_since is not None
        if away != self._was_away:
            told = f"{words.REDIS_GONE['away']}: waiting for it" if away else words.REDIS_BACK["away"]
            self._write(f"{clock(now)} {told}")
        if notice and notice != self._notice:
            self._write(f"{clock(now)} {notice}")
        self._was_away, self._notice = away, notice
        for crossing in news.crossings:
            self._write(plain.crossing(crossing, record.threshold_percentage))
        for alert in news.alerts:
            self._write(plain.alert(alert))
        if now >= self._next_at and not away:
            self._next_at = now + self._interval - 0.5  # looks are a second apart, more or less
            for line in plain.block(record):
                self._write(line)

    def _write(self, line: str) -> None:
        with closed_is_said():
            self._print(line)


class Screen:
    """The terminal's alternate screen: afterwards the terminal is as before. Raises `OutputClosed`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._shown: object = None

    def __enter__(self) -> Screen:
        with closed_is_said():
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        with closed_is_said():
            self._live.stop()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._console.size

    @property
    def ascii_only(self) -> bool:
        return not self._console.encoding.lower().startswith("utf")

    def draw(self, lines: list[Line]) -> None:
        """These lines and nothing else; drawn where they, or the terminal's size, are other than before."""
        if (self.size, lines) != self._shown:
            self._shown = self.size, lines
            with closed_is_said():
                self._live.update(_as_text(lines), refresh=True)


@contextmanager
def live_view(redis: str, until: float | None) -> Iterator[Show]:
    """The live view; at the end of the block the terminal is as before."""
    with Screen() as screen:

        def show(record: Record, news: News, now: float, notice: str) -> None:
            screen.draw(view(record, Frame(now, redis, until, *screen.size, notice, screen.ascii_only)))

        yield show


def _as_text(lines: list[Line]) -> Text:
    from rich.text import Text

    whole = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(lines):
        whole.append("\n" if number else "")
        for part, mood in line:
            whole.append(part, _STYLES[mood])
    return whole


def can_draw() -> bool:
    """Whether stdout is a terminal whose cursor can be moved, and rich is installed. Says how to install it."""
    if not sys.stdout.isatty():
        return False
    if importlib.util.find_spec("rich") is None:
        print("rqmem: for a live view: pip install 'rqmem[tui]'", file=sys.stderr)
        return False
    from rich.console import Console

    console = Console()
    return console.is_terminal and not console.is_dumb_terminal
