"""Captures of runs in the profile directory: while they grow, those that are kept, and what is left of dead workers.

A growing capture is a file ``running-...``, whose name says whose it is. A kept one is ``capture-...memray``; a
``.json`` file of the same name says which run it is of. `rqmem.policy.kept_captures` decides which are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from dataclasses import replace
from pathlib import Path

from rqmem import own_files
from rqmem.measure import process_tree, procfs
from rqmem.policy.kept_captures import Capture, superfluous
from rqmem.store import codec

_RUNNING, _KEPT, _SUFFIX = "running-", "capture-", ".memray"


def mark_of_this_process() -> str:
    """Whose a growing capture is: this worker's, for `running_path` there and in its horses."""
    pid = os.getpid()
    return f"{_host()}-{pid}-{procfs.read_start_time(pid) or 0}"


def running_path(directory: Path, mark: str, execution_id: str) -> Path:
    """Where the capture of an execution grows."""
    return directory / f"{_RUNNING}{mark}-{re.sub(r'[^A-Za-z0-9_-]', '', execution_id)[:80]}{_SUFFIX}"


def keep(growing: Path, about: Capture) -> bool:
    """Whether the capture stays, now that its run has ended; others may go instead. Raises `OSError`."""
    directory = growing.parent
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(about.at))
    name = f"{_KEPT}{moment}-{hashlib.sha256(growing.name.encode()).hexdigest()[:12]}"
    about = replace(about, name=name, size_bytes=growing.stat().st_size)
    own_files.replace(directory / f"{name}.json", codec.to_json(about))
    growing.replace(directory / f"{name}{_SUFFIX}")
    gone = superfluous(kept(directory), about.at)
    for each in gone:
        remove(directory, each)
    return about not in gone


def kept(directory: Path) -> list[Capture]:
    """Those that are there, newest first; raises `OSError` where it cannot be read."""
    found = []
    for path in directory.glob(f"{_KEPT}*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):  # another worker removes it, or it is not ours
            found.append(codec.from_json(Capture, path.read_text(encoding="utf-8")))
    return sorted(found, key=lambda each: -each.at)


def path_of(directory: Path, capture: Capture) -> Path:
    return directory / f"{capture.name}{_SUFFIX}"


def remove(directory: Path, capture: Capture) -> None:
    for path in (path_of(directory, capture), directory / f"{capture.name}.json"):
        with contextlib.suppress(OSError):
            path.unlink()


def find(directory: Path, job_id: str) -> Capture | None:
    """The last one of the job with this id; None where there is none. Raises `OSError`."""
    ours = (each for each in kept(directory) if each.job_id == job_id and path_of(directory, each).exists())
    return next(ours, None)


def sweep(directory: Path) -> None:
    """Remove what grew on workers of this host that are dead."""
    for path in directory.glob(f"{_RUNNING}{_host()}-*{_SUFFIX}"):
        pid, _, rest = path.name.removeprefix(f"{_RUNNING}{_host()}-").partition("-")
        start_time = rest.partition("-")[0]
        if pid.isdigit() and start_time.isdigit() and process_tree.is_gone(int(pid), int(start_time)):
            path.unlink(missing_ok=True)


def _host() -> str:
    return hashlib.sha256(procfs.host_identity().encode()).hexdigest()[:8]
