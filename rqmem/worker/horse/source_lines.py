"""Lines of code of a job: the innermost one of a frame, in a short form for the shared page, and in words.

A job's own code is what lies outside Python's library, `rqmem` and what is installed. Where an application is installed
as a package itself, the package (or module) that its job's path begins with is its own.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import site
import stat
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rqmem.worker.evidence import AT_OR_BEFORE
from rqmem.worker.shared_memory import SharedPage

_LARGEST_SOURCE_BYTES = 8 * 2**20
_NOT_USER_CODE = (
    "<",
    str(Path(os.__file__).parent),  # `sysconfig` would say so too, but takes 4 ms to import
    *site.getsitepackages(),
    str(Path(__file__).parents[2]),
)
_CALLS_USER_CODE = (str(Path(__file__).with_name("user_code.py")), "run_user_code")

_page: SharedPage | None = None
_installed: dict[str, tuple[str, ...]] = {}  # where a package or module is that a job's path begins with


def runs_in(page: SharedPage) -> None:
    """A job begins, in a horse with this page."""
    global _page
    _page = page


def line_of_user_code(frame: FrameType | None) -> str:
    """``line:function:path`` of the job's innermost frame outside Python's library and rqmem; see `described`.

    The innermost frame of all where there is none, as before the job's function begins and after it has returned: the
    program that the worker was started by is no job's code.
    """
    innermost = frame
    while frame is not None and not is_users((code := frame.f_code).co_filename):
        frame = frame.f_back if (code.co_filename, code.co_name) != _CALLS_USER_CODE else None
    frame = frame or innermost
    return _line(frame, frame.f_lineno) if frame is not None else ""


def _line(frame: FrameType, number: int) -> str:
    return f"{number}:{frame.f_code.co_name}:{frame.f_code.co_filename}"


def described_line(frame: FrameType, number: int) -> str:
    return described(_line(frame, number))


def is_users(path: str) -> bool:
    """Whether a file's code is the job's own."""
    return not path.startswith(_NOT_USER_CODE) or path.startswith(_own_package())


def _own_package() -> tuple[str, ...]:
    """Of the job that runs here; none where it is of `rqmem`, or not imported yet."""
    name = _page.job.partition(".")[0] if _page is not None else ""
    if name not in _installed and name != __name__.partition(".")[0] and (module := sys.modules.get(name)) is not None:
        directories = [os.path.join(each, "") for each in getattr(module, "__path__", ())]  # noqa: PTH118
        _installed[name] = tuple(directories or filter(None, [getattr(module, "__file__", None)]))
    return _installed.get(name, ())


@functools.lru_cache(maxsize=256)
def described(line: str) -> str:
    """A line of code for people: ``path:line in function: source``; where `evidence` has marked it, that is said."""
    mark = "at or before " if line.startswith(AT_OR_BEFORE) else ""
    number, _, rest = line.removeprefix(AT_OR_BEFORE).partition(":")
    function, _, path = rest.partition(":")
    if not number.isdigit():
        return ""
    source = _source(path, int(number))
    with contextlib.suppress(ValueError, OSError):
        path = str(Path(path).relative_to(Path.cwd()))
    return f"{mark}{path}:{number} in {function}: {source}"[:200]


def _source(path: str, number: int) -> str:
    """That line of a file; "": none."""
    return linecache.getline(path, number).strip() if _may_be_read(path) else ""


def read_no_pipes() -> None:
    """From now on tracebacks show no lines of pipes and devices. Code may call anything its file, and they would wait.

    What is formatted after a job has no time limit.
    """
    update = linecache.updatecache

    def update_if_it_ends(filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:
        return update(filename, module_globals) if _may_be_read(filename) else []

    linecache.updatecache = update_if_it_ends


def _may_be_read(path: str) -> bool:
    """Whether it is a file that ends. What is not found may be in an archive."""
    for directory in ("", *sys.path):  # as `linecache` looks for it
        try:
            found = os.stat(os.path.join(directory, path))  # noqa: PTH116, PTH118
        except (OSError, ValueError, TypeError):
            continue
        return stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_SOURCE_BYTES
    return True


def described_growth(page: SharedPage) -> list[tuple[float, str]]:
    """MB and line of code for people, most first."""
    return [(grown_mb, described(line)) for grown_mb, line in page.grew]
