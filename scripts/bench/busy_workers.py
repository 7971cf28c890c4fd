"""Workers of rqmem that work, by what they write of themselves: no process is started."""

from __future__ import annotations

import time
from collections.abc import Iterable

from redis import Redis

from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Live, LiveJob
from rqmem.store.history.samples import RINGS, Sample

_BEGAN = time.time()


def report(connection: Redis, names: Iterable[str], queue: str) -> None:
    """Write what these workers report in one second, each with a job whose memory changes."""
    now = time.time()
    history_writer.version_is_ours(connection)
    with connection.pipeline(transaction=False) as pipeline:
        for number, name in enumerate(names):
            usage_mb = 60 + (now * (1 + number % 7) + 20 * number) % 150
            job = LiveJob(
                "jobs.campaigns.Export", f"{number:032}", queue, _BEGAN, usage_mb, 210.0, 256.0, "customers 1-50", 900
            )
            live = Live(
                worker=name, host="web-1", pid=1000 + number, at=now, started_at=_BEGAN, worker_mb=40.0,
                worker_limit_mb=512.0, limit_mb=256.0, horse_pid=2000 + number, kept_by="watcher", jobs=70, breaches=1,
                recycled=2, queues=[queue], job=job,
            )  # fmt: skip
            history_writer.beat(pipeline, live, 60)
            samples = [Sample(ring.begin(now), usage_mb, 256.0, 40.0) for ring in RINGS]
            history_writer.write_samples(pipeline, name, samples, now)
        pipeline.execute()
