"""Whether docs/troubleshooting.md explains every warning and error that rqmem can log, and nothing that is gone.

Lines about jobs are events: `scripts.reference.events` has an example of each. All others are calls of a logger, found
in the source. The page is written by hand: a row for each line, with what it means and what to do.
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
from scripts.reference.markdown import code

PAGE = ROOT / "docs" / "troubleshooting.md"
END = "## Why a horse died"
"""What comes below is not about lines that rqmem logs."""

_LEVELS = {"warning", "error", "exception", "critical"}
_LOGGERS = {"_log", "log", "logger", "logging"}
_VARIES = re.compile(r"%(?:\.\d+)?[srdgf]")
_SHOWN: dict[str, tuple[str, ...]] = {
    "%s": ("Worker ...: job ... failed: rqmem.errors....: ...",),
    "worker %s: %s": (
        "worker ...: job ...: another worker took this run over; the outcome of this execution is not recorded",
        "worker ...: ... (an error of a pool's worker)",
    ),
    "worker %s: could not %s": (
        "worker ...: could not release the dependents of job ...",
        "worker ...: could not enqueue dependents in ...",
    ),
    "--preload %s": ("--preload ... left ... threads running ...: horses do not have them, ...",),
    "%s (%s): waiting for it to %s": (
        "Redis does not answer (...): waiting for it to ...",
        "Redis refuses (...): waiting for it to ...",
    ),
    "%s after %.1f s: could %s": (
        "Redis answers again after ... s: could ...",
        "Redis no longer refuses after ... s: could ...",
    ),
    "worker %s: %s the heartbeat: %s": (
        "worker ...: Redis does not answer the heartbeat: ...",
        "worker ...: Redis refuses the heartbeat: ...",
    ),
    "words.REDIS_BACK['away']": ("Redis answers again",),
    "%s: rqmem_up is 0 until it does: %s": ("Redis does not answer: rqmem_up is 0 until it does: ...",),
    "alerts: %s: %s": ("alerts: Redis does not answer: ...",),
    "alerts: %s": ("alerts: Redis answers again",),
    "failed": (  # what a process next to the worker says of itself
        "worker ...: settling what a dead worker left was cut short",
        "worker ...: the verdict on job ... was cut short",
        "worker ...: the sender of alerts failed",
        "worker ...: the process of on(...) hooks failed",
    ),
    "worker %s: %s has died; another begins soon": (
        "worker ...: the sender of alerts has died; another begins soon",
        "worker ...: the process of on(...) hooks has died; another begins soon",
    ),
    "worker %s: %s failed: %s": ("worker ...: on(...) hook ... failed: ...",),
}
"""Format or expression of a logger's call -> the lines of the page, where the format says too little."""


def check(page: str) -> None:
    """Raises `ConfigError` for a line that the page does not explain, and for a row about a line that is gone."""
    rows = set(re.findall(r"^\| (`+.*?`+) \|", page.partition(END)[0], re.MULTILINE))
    lines = {code(each) for each in lines_of_rqmem()}
    if missing := sorted(lines - rows):
        raise ConfigError(f"docs/troubleshooting.md does not explain the log line {missing[0]}")
    if gone := sorted(rows - lines):
        raise ConfigError(f"docs/troubleshooting.md explains a log line that is gone: {gone[0]}")


def lines_of_rqmem() -> Iterator[str]:
    """Each line as the page shows it."""
    for event in EXAMPLES:
        if words.level(event) >= logging.WARNING:
            yield words.text(event).splitlines()[0]
    for text in logged():
        yield from _SHOWN.get(text, [_VARIES.sub("...", text)])


def logged(package: Path = ROOT / "rqmem") -> Iterator[str]:
    """The text of each call of a logger at level warning or above: a format, or the expression that makes it."""
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS:
                root = ast.unparse(node.func.value)
                if root.partition("(")[0].split(".")[0 if "getLogger" in root else -1] in _LOGGERS and node.args:
                    text = node.args[0]
                    yield str(text.value) if isinstance(text, ast.Constant) else ast.unparse(text)
