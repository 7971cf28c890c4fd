"""A snapshot of a worker as text, and the files that hold the last ones. No process is looked at in here."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

from rqmem import own_files
from rqmem.profiling import directory as private
from rqmem.text import printable, timestamp
from rqmem.values import dataclass, field

KEPT = 20
_NAME = "snapshot-"


@dataclass(frozen=True)
class Inside:
    """What a horse says of itself. Lines of code innermost first.

    Attributes:
        doing: ``the job's code``, RQ's code around it, or nothing.
        stack: of its main thread.
        threads: name and innermost line of user code of each other thread.
        kinds: type, objects and MB more than before the job, most MB first.
        note: why there are none.
    """

    doing: str
    stack: list[str] = field(default_factory=list)
    threads: list[tuple[str, str]] = field(default_factory=list)
    kinds: list[tuple[str, int, float]] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Process:
    """One process of the tree; ``role``: what it is to the worker, empty for what a job started."""

    pid: int
    command: str
    used_mb: float
    role: str = ""


@dataclass(frozen=True)
class WorkerSnapshot:
    """A worker at one moment. Sizes in MB.

    Attributes:
        at: epoch seconds.
        facts: label and text of what is known from outside.
        processes: the worker first.
        worker_stack: of the worker's main thread, innermost first; for one without a job.
        grew: MB and line of code where the job grew so far.
        inside: as the horse says; None: it has none, or did not answer, and ``why_not`` says why.
    """

    worker: str
    at: float
    facts: list[tuple[str, str]]
    processes: list[Process]
    worker_stack: list[str] = field(default_factory=list)
    grew: list[tuple[float, str]] = field(default_factory=list)
    inside: Inside | None = None
    why_not: str = ""


def as_text(snapshot: WorkerSnapshot) -> str:
    moment = timestamp(snapshot.at)
    lines = [f"worker {snapshot.worker}, {moment}", *(f"{label:<12}{text}" for label, text in snapshot.facts if text)]
    lines += _section("processes", (
        f"{each.used_mb:>8.1f} MB  {each.pid:>8}  {each.command}{f'  ({each.role})' if each.role else ''}"
        for each in snapshot.processes
    ))  # fmt: skip
    inside = snapshot.inside
    if inside is not None:
        lines += _section(f"the horse is in {inside.doing}, innermost line first", inside.stack)
        lines += _section("its other threads", (f"{name}: {line}" for name, line in inside.threads))
    lines += _section("the worker waits, innermost line first", snapshot.worker_stack)
    lines += _section("where the job grew so far", (f"{grown:>8.0f} MB  {line}" for grown, line in snapshot.grew))
    if inside is not None:
        kinds = (f"{used:>8.1f} MB  {count:>10,}  {name}" for name, count, used in inside.kinds)
        lines += _section(
            "objects more than before the job, by type", [*kinds, *([inside.note] if inside.note else [])]
        )
    lines += ["", snapshot.why_not] if snapshot.why_not else []
    return "\n".join(map(printable, lines)) + "\n"


def path_for(directory: Path, worker: str, at: float) -> Path:
    """A name that sorts by time."""
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(at))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", worker)[:60]
    return directory / f"{_NAME}{moment}.{int(at * 1000) % 1000:03}-{name}.txt"


def save(path: Path, snapshot: WorkerSnapshot) -> None:
    """Write it, and forget the oldest beyond `KEPT`. Raises `OSError`, and `ConfigError` for a bad directory."""
    private.make(path.parent)
    own_files.replace(path, as_text(snapshot))
    for old in sorted(path.parent.glob(f"{_NAME}*.txt"))[:-KEPT]:
        old.unlink(missing_ok=True)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return ["", title, *indented] if indented else []
