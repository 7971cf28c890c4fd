"""Tracebacks: as Python writes them, read; and where in somebody's code an error was raised. No I/O."""

from __future__ import annotations

import importlib
import re
import traceback

from rqmem.text import shortened

_HEAD = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):")
_BETWEEN = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_MARGIN = "  | "  # of a group of exceptions
_OF_IMPORT = "<frozen importlib"
_IMPORTLIB = importlib.__file__
_OF_RQMEM = __file__.removesuffix("tracebacks.py")
_ENOUGH = 500_000  # characters, at either end


def what_was_raised(text: str) -> str:
    """The error that a traceback ends with, in one line: the first one of what it says, which may have many.

    The last line of the traceback may be anything: of SQLAlchemy's errors it is the address of their documentation.
    What is no traceback is taken for the error itself. Empty for nothing. At most some 10,000 characters of it.
    """
    if len(text) > 2 * _ENOUGH:  # what there may be many MB of is the text of the error
        text = f"{text[:_ENOUGH]}\n{text[-_ENOUGH:]}"
    lines = text.strip("\n").rstrip().splitlines()
    heads = [number for number, line in enumerate(lines) if _HEAD.fullmatch(line) and _begins(lines, number)]
    below = [line.removeprefix(_MARGIN) for line in lines[heads[-1] + 1 if heads else 0 :]]
    said = [number for number, line in enumerate(below) if line.strip() and not (heads and line.startswith(" "))]
    if not said:
        return shortened(lines[-1].strip()) if lines else ""
    error, *more = below[said[0] :]
    if error.rstrip().endswith(":"):  # nothing in its first line but the name
        error = f"{error.rstrip()} {next((line.strip() for line in more if line.strip()), '')}"
    return shortened(error.strip())


def where_raised(error: BaseException) -> str:
    """`` (boom.py:1)``: the last line of the error's traceback that is of no import machinery; rather not one of rqmem.

    Empty if there is none, and for a SyntaxError, which names its own place.
    """
    if isinstance(error, SyntaxError):
        return ""
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    outside = [each for each in frames[1:] if not each.filename.startswith(_OF_IMPORT) and each.filename != _IMPORTLIB]
    outside = [each for each in outside if not each.filename.startswith(_OF_RQMEM)] or outside
    return f" ({outside[-1].filename.rpartition('/')[2]}:{outside[-1].lineno})" if outside else ""


def _begins(lines: list[str], number: int) -> bool:
    """Whether an exception of the chain begins there, and not a traceback within the text of one."""
    return number == 0 or (number > 1 and lines[number - 2].removeprefix(_MARGIN).strip() in _BETWEEN)
