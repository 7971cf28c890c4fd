"""A PostgreSQL server for tests: from Debian's packages, in a directory and on a Unix socket of its own.

`missing` says why there can be none, for a skip. What is installed and does not start is an error, with the
server's own words. The server ends with the process that started it, also when that one is killed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from rqmem.measure.linux import die_with_parent
from rqmem.testing import wait_until

USER = "rqmem"
ACCOUNTS = ("postgres", "nobody")
PORT = "5432"  # only part of the socket's name
SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "shared_buffers": "32MB",
    # A zone far from UTC: what leans on the server's shows.
    "timezone": "Asia/Kolkata",
    # Nothing here has to outlive the machine.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def missing() -> str | None:
    """Why no server can be started here; None: one can."""
    if importlib.util.find_spec("psycopg") is None:
        return "no PostgreSQL driver: pip install 'psycopg[binary]'"
    if programs() is None:
        return "no PostgreSQL server: apt-get install postgresql"
    if os.geteuid() == 0 and _account() is None:
        return f"PostgreSQL refuses to run as root, and there is no user {' or '.join(ACCOUNTS)}"
    return None


def programs() -> Path | None:
    """The directory of ``initdb`` and ``postgres``: Debian's newest, else what is on PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    directory = Path(found).parent if found else None
    return directory if directory and (directory / "postgres").exists() else None


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs; its socket is in ``directory``."""

    directory: Path
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    def url(self, database: str) -> str:
        """For SQLAlchemy. There is no password: only root and the server's user get to the socket."""
        query = {"host": str(self.directory), "port": PORT}
        return URL.create("postgresql+psycopg", USER, database=database, query=query).render_as_string()

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a copy of that database (an empty one), dropped at the end, whoever may still use it."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def answers(self) -> bool:
        """Whether it takes connections yet."""
        import psycopg

        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        import psycopg

        there: dict[str, Any] = {"host": str(self.directory), "port": PORT, "user": USER, "dbname": "postgres"}
        with psycopg.connect(**there, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server with nothing in it. Call only where nothing is `missing`."""
    where = programs()
    assert where is not None
    # In /tmp: a socket's path must be short, and another user than ours has to get there.
    with tempfile.TemporaryDirectory(prefix="rqmem-postgres-", dir="/tmp") as name:
        directory = Path(name)
        account = _account() if os.geteuid() == 0 else None
        become: dict[str, Any] = {"cwd": directory}
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
            become |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        _make_cluster(where, directory, become)
        process = _start(where, directory, become)
        try:
            server = PostgresServer(directory)
            wait_until(lambda: process.poll() is not None or server.answers())
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{(directory / 'log').read_text()}")
            yield server
        finally:
            _end(process)


def _make_cluster(where: Path, directory: Path, become: dict[str, Any]) -> None:
    options = [f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(
        [where / "initdb", f"--pgdata={directory / 'data'}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **become,
    )
    if made.returncode:
        raise RuntimeError(f"initdb ended with {made.returncode}:\n{made.stdout}")


def _start(where: Path, directory: Path, become: dict[str, Any]) -> subprocess.Popen[bytes]:
    settings = SETTINGS | {"unix_socket_directories": str(directory)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [where / "postgres", "-D", directory / "data", *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            **become,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # to PostgreSQL: at once, and in order
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as where we are root."""
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next((accounts[name] for name in ACCOUNTS if name in accounts), None)
