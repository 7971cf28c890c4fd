"""A real PostgreSQL server, and the small Django project on it or on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from tests import forked
from tests.conftest import StartWorker
from tests.postgres import PORT, USER, PostgresServer


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
        return manage({**self.environ, **environ}, *arguments)

    def python(self, code: str) -> str:
        """What a program of the project prints."""
        return self.manage("shell", "-v", "0", "-c", code)


def manage(environ: dict[str, str], *arguments: str) -> str:
    """What ``manage.py`` of the project prints."""
    done = forked.run_module("tests.integrations.manage", *arguments, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def outcome(job: Job) -> object:
    result = job.latest_result()
    assert result is not None, job.get_status()
    return result.return_value if result.exc_string is None else result.exc_string.strip().splitlines()[-1]


MIGRATE = ("migrate", "--run-syncdb", "-v", "0")
DJANGO = {"DJANGO_SETTINGS_MODULE": "tests.integrations.settings"}


@pytest.fixture(scope="session")
def migrated_file(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the project's tables, to be copied."""
    path = tmp_path_factory.mktemp("django") / "shop.db"
    manage({**DJANGO, "TEST_REDIS_URL": redis_url, "TEST_SQLITE": str(path)}, *MIGRATE)
    return path


@pytest.fixture(scope="session")
def migrated_database(redis_url: str, postgres: PostgresServer) -> Iterator[str]:
    """The name of one in PostgreSQL."""
    with postgres.database() as url:
        manage({**DJANGO, "TEST_REDIS_URL": redis_url, **in_postgres(postgres, url)}, *MIGRATE)
        yield name_of(url)


@pytest.fixture(params=["postgresql", "sqlite"])
def project(
    request: pytest.FixtureRequest, redis_url: str, connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> Iterator[Project]:
    environ = {**DJANGO, "TEST_REDIS_URL": redis_url}
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("migrated_file"), tmp_path)
        yield Project({**environ, "TEST_SQLITE": str(path)}, connection, start_worker)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database(request.getfixturevalue("migrated_database")) as url:
        yield Project({**environ, **in_postgres(server, url)}, connection, start_worker)


def in_postgres(server: PostgresServer, url: str) -> dict[str, str]:
    return {"TEST_POSTGRES": name_of(url), "TEST_POSTGRES_HOST": str(server.directory)}


def name_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def end_backends(postgres: PostgresServer) -> Callable[[str], int]:
    """End all sessions in that database, as a failover or a restart of the server does; how many there were."""

    def end(database: str) -> int:
        where = {"host": str(postgres.directory), "port": int(PORT), "user": USER}
        with psycopg.connect(dbname="postgres", autocommit=True, **where) as session:  # type: ignore[arg-type]
            found = session.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [database]
            )
            return len(found.fetchall())

    return end
