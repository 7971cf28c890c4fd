"""What tests of workers have in common."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue


@pytest.fixture
def queue(connection: Redis) -> Queue:
    return Queue("jobs", connection=connection)
