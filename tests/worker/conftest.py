"""A Redis server of one test's own, for tests that stop it, kill it, or have it refuse."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from rqmem.connection import embedded
from rqmem.testing import wait_until


@dataclass
class OwnRedis:
    """A server of one test's own, to stop and to kill."""

    directory: Path
    server: embedded.Server

    @property
    def connection(self) -> Redis:
        return Redis.from_url(self.server.url)

    @property
    def queue(self) -> Queue:
        return Queue("jobs", connection=self.connection)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        wait_until(lambda: embedded.status(self.directory) is None)

    def start_again(self) -> None:
        url = self.server.url
        self.server = embedded.start(self.directory)
        assert self.server.url == url


@pytest.fixture
def queue(connection: Redis) -> Queue:
    return Queue("jobs", connection=connection)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    own = OwnRedis(tmp_path, embedded.start(tmp_path))
    own.connection.config_set("appendfsync", "always")
    yield own
    embedded.stop(own.directory)
