"""The short form of `tests.chaos`: deaths at random, and everything is as if nobody had died."""

from __future__ import annotations

from pathlib import Path

from redis import Redis

from tests import chaos


def test_deaths_at_random_change_nothing(redis_url: str, connection: Redis, tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    with chaos.crew_on(redis_url, log) as crew:
        for seed in range(8):
            try:
                chaos.play(seed, crew, connection)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}\n{log.read_text()[-4000:]}") from error
