"""The directory of profiles: private, ours, bounded. Raises `ConfigError` for what a person has to settle.

What is in it names arguments, code and data of jobs: directory 0700, files 0600, whatever the umask.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rqmem import own_files
from rqmem.errors import ConfigError
from rqmem.units import MB, show_mb, to_mb

_WHAT_TO_DO = "give another --profile-dir (RQMEM_PROFILE_DIR)"
_FEWEST_FREE_BYTES = 32 * MB


def located(given: str) -> Path:
    """Where it is, absolute: jobs may change the current directory. Makes nothing."""
    try:
        return Path(os.path.abspath(Path(given).expanduser()))  # noqa: PTH100  resolve() would follow what is refused
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"the profile directory {given} cannot be found: {error}; {_WHAT_TO_DO}") from None


def make(directory: Path) -> None:
    """Make it for us alone; refuse one that is there and is not, or cannot be written."""
    with _explained(directory):
        if directory.parent.name == ".rqmem":
            own_files.make_holder(directory.parent, _WHAT_TO_DO)
        own_files.make_private(directory, _WHAT_TO_DO)


def check(directory: Path) -> None:
    """Refuse to read profiles in a directory of another user. Raises `UntrustedFile`."""
    with contextlib.suppress(OSError):  # reading it raises the same error
        own_files.check_private(directory, _WHAT_TO_DO)


def check_can_be(directory: Path) -> None:
    """Refuse one that is no directory, or could not be made or written to. Makes nothing.

    One that is open to others costs only the snapshot.
    """
    with _explained(directory):
        there = directory
        if not os.path.lexists(directory):
            there = next(each for each in directory.parents if each.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is no directory")
        if not directory.exists() and directory.parent != there:
            raise FileNotFoundError(errno.ENOENT, f"there is no directory {directory.parent}")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{there} cannot be written to")


def check_room(directory: Path) -> None:
    """Refuse one that cannot be written to, or has hardly any room left."""
    probe = directory / f".probe-{os.getpid()}"
    with _explained(directory):
        try:
            os.close(own_files.create(probe))
        finally:
            probe.unlink(missing_ok=True)
        room = os.statvfs(directory)
    free_bytes = room.f_bavail * room.f_frsize
    if free_bytes < _FEWEST_FREE_BYTES:
        raise ConfigError(
            f"the profile directory {directory} is full: {show_mb(to_mb(free_bytes))} MB are free, and profiles want "
            f"{show_mb(to_mb(_FEWEST_FREE_BYTES))} at least; make room, or {_WHAT_TO_DO}"
        )


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `ConfigError` of one line."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the profile directory {directory} cannot be used: {error.strerror or error}; {_WHAT_TO_DO}"
        ) from None
