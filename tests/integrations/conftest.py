"""A real PostgreSQL server, and the small Django project on it or on SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from tests import postgres
from tests.conftest import ROOT, StartWorker


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    if (why := postgres.missing()) is not None:
        pytest.skip(why)
    with postgres.running() as server:
        yield server


@dataclass(frozen=True)
class Project:
    """A Django project with an empty table of orders. ``environ``: what its processes need."""

    environ: dict[str, str]
    connection: Redis
    start_worker: StartWorker

    def enqueue(self, name: str, *args: object, queue: str = "default") -> Job:
        return Queue(queue, connection=self.connection).enqueue(f"tests.integrations.shop.jobs.{name}", *args)

    def work_off(self, *options: str, **environ: str) -> str:
        worker = self.start_worker(
            "default", "shop", "--burst", "--preload", "tests.integrations.setup_django", *options,
            **self.environ, **environ,
        )  # fmt: skip
        output = worker.finish()
        assert worker.process.returncode == 0, output
        return output

    def results(self, *jobs: str, **environ: str) -> list[object]:
        """What each of these jobs returned, one after another in one horse; an error as its last line."""
        queued = [self.enqueue(*name.split()) for name in jobs]
        self.work_off(**environ)
        return [outcome(job) for job in queued]

    def manage(self, *arguments: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integrations.manage", *arguments],
            cwd=ROOT, env={**os.environ, **self.environ, **environ}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout + done.stderr

    def python(self, code: str) -> str:
        """What a program of the project prints."""
        return self.manage("shell", "-v", "0", "-c", code)


def outcome(job: Job) -> object:
    result = job.latest_result()
    assert result is not None, job.get_status()
    return result.return_value if result.exc_string is None else result.exc_string.strip().splitlines()[-1]


@pytest.fixture(params=["postgresql", "sqlite"])
def project(
    request: pytest.FixtureRequest, redis_url: str, connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> Iterator[Project]:
    environ = {"DJANGO_SETTINGS_MODULE": "tests.integrations.settings", "TEST_REDIS_URL": redis_url}
    if request.param == "sqlite":
        made = Project({**environ, "TEST_SQLITE": str(tmp_path / "shop.db")}, connection, start_worker)
        made.manage("migrate", "--run-syncdb", "-v", "0")
        yield made
        return
    server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
    with server.database() as url:
        name = url.rpartition("/")[2].partition("?")[0]
        environ |= {"TEST_POSTGRES": name, "TEST_POSTGRES_HOST": str(server.directory)}
        made = Project(environ, connection, start_worker)
        made.manage("migrate", "--run-syncdb", "-v", "0")
        yield made


@pytest.fixture
def end_backends(postgres_server: postgres.PostgresServer) -> Callable[[str], int]:
    """End all sessions in that database, as a failover or a restart of the server does; how many there were."""

    def end(database: str) -> int:
        where = {"host": str(postgres_server.directory), "port": int(postgres.PORT), "user": postgres.USER}
        with psycopg.connect(dbname="postgres", autocommit=True, **where) as session:  # type: ignore[arg-type]
            found = session.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [database]
            )
            return len(found.fetchall())

    return end
