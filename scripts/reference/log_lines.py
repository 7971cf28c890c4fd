"""Every warning and error that rqmem can log, with what it means and what to do: tables of docs/troubleshooting.md.

Lines about jobs are events: `scripts.reference.events` has an example of each. All others are calls of a logger, found
in the source. What they mean is in `scripts.reference.log_lines_explained`. A line without an explanation is an error
here, and so is an explanation without a line.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from rqmem import words
from rqmem.errors import ConfigError
from scripts.harness import ROOT
from scripts.reference.events import EXAMPLES
from scripts.reference.log_lines_explained import EVENTS, LINES, TOPICS, Explained
from scripts.reference.markdown import cell, code, table

_LEVELS = {"warning", "error", "exception", "critical"}
_LOGGERS = {"_log", "log", "logger", "logging"}
_VARIES = re.compile(r"%(?:\.\d+)?[srdgf]")


def page() -> str:
    """A table for each topic. Raises `ConfigError` for a line without an explanation, and the reverse."""
    rows = list(_rows())
    head = ("line in the log", "what it means", "what to do")
    parts = []
    for topic in TOPICS:
        found = [(code(shown), cell(each.means), cell(each.do)) for shown, each in rows if each.topic == topic]
        parts += [f"## {topic}", table(head, found)]
    return "\n\n".join(parts)


def _rows() -> Iterator[tuple[str, Explained]]:
    """A line as it is shown, and its explanation."""
    kinds = {type(each).__name__: each for each in EXAMPLES if words.level(each) >= logging.WARNING}
    texts = dict.fromkeys(logged())
    for what, told, explained in (("event", kinds, EVENTS), ("log line", texts, LINES)):
        if missing := [name for name in told if name not in explained]:
            raise ConfigError(f"scripts/reference/log_lines_explained.py does not explain the {what} {missing[0]!r}")
        if gone := [name for name in explained if name not in told]:
            raise ConfigError(f"scripts/reference/log_lines_explained.py explains a {what} that is gone: {gone[0]!r}")
    for name, event in kinds.items():
        yield words.text(event).splitlines()[0], EVENTS[name]
    for text in texts:
        each = LINES[text]
        for shown in each.shown or [_VARIES.sub("...", text)]:
            yield shown, each


def logged(package: Path = ROOT / "rqmem") -> Iterator[str]:
    """The text of each call of a logger at level warning or above: a format, or the expression that makes it."""
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS:
                root = ast.unparse(node.func.value)
                if root.partition("(")[0].split(".")[0 if "getLogger" in root else -1] in _LOGGERS and node.args:
                    text = node.args[0]
                    yield str(text.value) if isinstance(text, ast.Constant) else ast.unparse(text)
