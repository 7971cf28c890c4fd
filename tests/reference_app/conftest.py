"""Databases of the reference application: each test that asks for one gets its own, SQLite and PostgreSQL in turn.

And the stand-in for Retell's API.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy.engine import Engine

from jobs.campaign_batches import FollowUpCallBatchJob, ProcessRetellAICampaignBatchJob
from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.database import create_schema, open_database
from jobs.reminders import SendAppointmentReminderJob
from jobs.sentiment import AnalyzeCallSentimentJob
from jobs.sources import shared_sessions
from jobs.staff import BulkAssignStaffToEventTypesJob
from seeds.retell_stand_in import StandIn
from tests import forked
from tests.postgres import PostgresServer


@pytest.fixture(scope="module", autouse=True)
def libraries(request: pytest.FixtureRequest) -> Iterator[None]:
    """What workers of these tests have imported when they start. Importing it costs 1 to 2 s of CPU each time."""
    with forked.preloading(*getattr(request.module, "LIBRARIES", ("sqlalchemy.orm", "psycopg", "retell"))):
        yield


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database of the test's own, without tables."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path}/an app.db"
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            yield stack.enter_context(server.database())


@pytest.fixture
def database_url(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a database of the test's own with the schema and no rows; DATABASE_URL too, for workers it starts."""
    engine = open_database(empty_database_url)
    create_schema(engine)
    engine.dispose()
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    return empty_database_url


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """An engine on that database."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def called_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """For jobs that a test calls itself: their ceilings then hold all that the tests have imported and started."""
    for job in (
        ProcessRetellAICampaignJob, ProcessRetellAICampaignBatchJob, FollowUpCallBatchJob,
        AnalyzeCallSentimentJob, SendAppointmentReminderJob, BulkAssignStaffToEventTypesJob,
    ):  # fmt: skip
        monkeypatch.setattr(job, "memory_limit_mb", 4096)


@pytest.fixture
def retell() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def environ(database_url: str, retell: StandIn) -> dict[str, str]:
    """What a worker needs to find both."""
    return {
        "DATABASE_URL": database_url,
        "RETELL_API_KEY": retell.api_key,
        "RETELL_BASE_URL": retell.url,
        "RQMEM_HEARTBEAT": "0.5",
    }


@pytest.fixture
def here(
    called_here: None, connection: Redis, redis_url: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """Jobs may run in this process, without a worker; the engine that they use."""
    for name, value in {**environ, "RQMEM_REDIS_URL": redis_url}.items():
        monkeypatch.setenv(name, value)
    engine: Engine = shared_sessions().kw["bind"]
    yield engine
    engine.dispose()
