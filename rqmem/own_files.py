"""Files and directories that another user may have put in our way: which are ours to use, and how they are opened.

What belongs to us or to root is trusted. A directory that keeps data of jobs must be ours alone. New files are made
with ``O_EXCL`` and without following a link; a link of another user is never followed. Where one of these rules is
broken, `UntrustedFile` says in one line what is wrong and what to do. Other errors of files stay `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from pathlib import Path

from rqmem.errors import UntrustedFile

_MAY_BE_READ = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/", os.devnull)
_MOST_LINKS = 40  # as the kernel


def is_ours(found: os.stat_result) -> bool:
    """Whether it belongs to us or to root."""
    return found.st_uid in (os.geteuid(), 0)


def owner(found: os.stat_result) -> str:
    """``user ada (uid 1001)``."""
    try:
        return f"user {pwd.getpwuid(found.st_uid).pw_name} (uid {found.st_uid})"
    except KeyError:
        return f"the user with uid {found.st_uid}"


def make_private(directory: Path, advice: str) -> None:
    """Make a directory for us alone; refuse one that is there and is not. ``advice``: what else to do."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    check_private(directory, advice)


def check_private(directory: Path, advice: str) -> None:
    """Refuse a directory that is not ours alone. Raises `UntrustedFile`."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UntrustedFile(f"{directory} is a link or a file, and must be a directory: {advice}")
    if found.st_uid != os.geteuid():
        raise UntrustedFile(f"{directory} belongs to {owner(found)}, and we are uid {os.geteuid()}: {advice}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UntrustedFile(f"{directory} is open to other users: 'chmod 700' it if all in it is yours, or {advice}")


def make_holder(directory: Path, advice: str) -> None:
    """Make ``.rqmem``, which holds private directories and keeps them out of git; refuse one that is not ours."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    check_holder(directory, advice)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if is_ours(os.fstat(descriptor)):  # else it was exchanged just now, and what comes next refuses it
            with contextlib.suppress(FileExistsError), os.fdopen(create(".gitignore", 0o644, descriptor), "w") as file:
                file.write("*\n")
    finally:
        os.close(descriptor)


def check_holder(directory: Path, advice: str) -> None:
    """Refuse a ``.rqmem`` of another user, or that everybody may write to."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UntrustedFile(f"{directory} is a link or a file, and must be a directory: {advice}")
    if not is_ours(found):
        raise UntrustedFile(f"{directory} belongs to {owner(found)}, and we are uid {os.geteuid()}: {advice}")
    if found.st_mode & stat.S_IWOTH:
        raise UntrustedFile(f"everybody may write to {directory}: 'chmod go-w' it if all in it is yours, or {advice}")


def open_ours(path: Path, flags: int) -> int:
    """A descriptor of a file of ours or root's in a private directory. Follows no link."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UntrustedFile(f"{path} is a pipe or a directory, and must be a file: remove it")
    if not is_ours(found):
        os.close(descriptor)
        raise UntrustedFile(f"{path} belongs to {owner(found)}, and we are uid {os.geteuid()}: remove it")
    return descriptor


def open_output(path: Path, flags: int) -> int:
    """A descriptor of a file that a person named and that we write to; made if it is not there.

    Refuses links of another user, and where everybody may make files also such a user's file or pipe.
    """
    check_links(path)
    with contextlib.suppress(FileNotFoundError):  # before it is opened: a pipe waits for its reader
        _check_output(path, path.stat())
    plain = 0 if path.is_symlink() else os.O_NOFOLLOW
    descriptor = os.open(path, (flags & ~os.O_TRUNC) | os.O_CREAT | os.O_CLOEXEC | plain, 0o666)
    try:
        found = os.fstat(descriptor)
        _check_output(path, found)
        if flags & os.O_TRUNC and stat.S_ISREG(found.st_mode):
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_output(path: Path, found: os.stat_result) -> None:
    is_theirs = (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)) and not is_ours(found)
    if is_theirs and path.parent.stat().st_mode & stat.S_IWOTH:
        raise UntrustedFile(f"{path} belongs to {owner(found)}: name another file, in a directory of yours")


def check_links(path: Path) -> None:
    """Refuse a path that leads over another user's link, who could lead us anywhere, or over too many links."""
    left, at, links = list(path.absolute().parts[::-1]), Path("/"), 0
    while left:
        part = left.pop()
        if part == "..":
            at = at.parent
            continue
        at = at / part
        try:
            found = at.lstat()
        except OSError:  # it is not there yet, or we may not see it: opening it raises the same error
            continue
        if not stat.S_ISLNK(found.st_mode):
            continue
        links += 1
        if links > _MOST_LINKS:
            raise UntrustedFile(f"{path} is a link that leads to itself: name another file")
        if not is_ours(found):
            raise UntrustedFile(f"{at} is a link of {owner(found)}: name a path without it")
        target = at.readlink()
        left += target.parts[::-1]
        at = Path("/") if target.is_absolute() else at.parent


def must_end(path: Path) -> None:
    """Refuse a file that a person named to be read, where reading might not end: a pipe, a device. Raises `OSError`.

    A pipe that the shell has opened is none of these, nor is ``/dev/null``.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or str(path).startswith(_MAY_BE_READ)):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket")


def create(path: str | Path, mode: int = 0o600, directory: int | None = None) -> int:
    """A descriptor of a new file. Raises `OSError`, also where there is one. ``directory``: its descriptor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode, dir_fd=directory)


def replace(path: Path, text: str, mode: int = 0o600, *, synced: bool = False) -> None:
    """Put a new file with this text in its place, so that nobody ever reads half of one. Raises `OSError`.

    ``synced``: it is on the disk then, so that a full one raises now.
    """
    half = beside(path)
    try:
        with os.fdopen(create(half, mode), "w", encoding="utf-8", errors="replace") as opened:
            opened.write(text)
            if synced:
                opened.flush()
                os.fsync(opened.fileno())
        half.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            half.unlink()
        raise


def beside(path: Path) -> Path:
    """A new name in the same directory, for a file that is to take the place of this one."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}")
