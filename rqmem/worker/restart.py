"""What a worker that restarts itself in place hands to its next life, and which program that is. Values only."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rqmem.store import codec
from rqmem.values import dataclass

EXIT_CODE = 12
"""Of a worker that stopped itself for memory, as Laravel's ``queue:work``."""

VARIABLE = "RQMEM_RESTARTED"
_PROGRAMS = {"rqmem", "rq"}


@dataclass(frozen=True)
class Restarted:
    """A worker's life so far: its name and pid, which stay, and how many jobs it has run."""

    name: str
    pid: int
    jobs: int

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Restarted | None:
        """None in a new worker, also in one that inherited the variable from another process."""
        text = environ.get(VARIABLE)
        if not text:
            return None
        before = codec.from_json(cls, text)
        return before if before.pid == os.getpid() else None

    def to_environ(self) -> dict[str, str]:
        return {VARIABLE: codec.to_json(self)}


def can_restart(program_file: str) -> bool:
    """Whether this process is a worker's own: ``rqmem worker``, ``rq worker``, as a script or by ``python -m``."""
    path = Path(program_file)
    return path.name in _PROGRAMS or (path.name == "__main__.py" and bool(_PROGRAMS.intersection(path.parts[-3:])))


def program() -> list[str]:
    """The command line of this process, for `os.execv` of the interpreter that runs it."""
    return [sys.executable, *sys.orig_argv[1:]]
