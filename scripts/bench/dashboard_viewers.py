"""What ``rqmem dashboard`` costs while people watch Live, how large it is, and what a browser loads at first.

`scripts.bench.dashboard` calls it.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import click
import psutil
from redis import Redis
from redis.client import Pipeline

from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Live, LiveJob
from rqmem.store.history.samples import RINGS, Sample
from rqmem.units import MB
from scripts.harness import dashboard

MOST_PERCENT = 1.0
MOST_MB = 70.0
MOST_FIRST_KB = 120.0
_VIEWERS, _WORKERS, _SECONDS = 20, 8, 30.0
_QUEUE = "campaigns"
_PAGES = ("", "types?window=30d", "trends?window=30d", "trends?window=24h", "types?window=24h", "jobs", "workers")


def measure(connection: Redis) -> list[str]:
    """On a Redis with a full journal; returns what is outside the budget."""
    over = threading.Event()
    working = threading.Thread(target=_work, args=(connection, over))
    working.start()
    try:
        with tempfile.TemporaryDirectory() as logs, dashboard(Path(logs) / "log", port=0) as address:
            [process] = [each for each in psutil.Process().children(recursive=True) if "dashboard" in each.cmdline()]
            return _watched(process, address)
    finally:
        over.set()
        working.join()


def _watched(process: psutil.Process, address: str) -> list[str]:
    for page in _PAGES:
        urlopen(address + page).read()
    outside, kb = [], _first_visit_kb(address)
    for _ in range(_VIEWERS):
        threading.Thread(target=_view, args=(f"{address}api/v1/events",), daemon=True).start()
    time.sleep(5)
    before, began = _cpu_seconds(process), time.monotonic()
    time.sleep(_SECONDS)
    percent = 100 * (_cpu_seconds(process) - before) / (time.monotonic() - began)
    mb = process.memory_full_info().pss / MB
    for what, value, most, unit in (
        (f"with {_VIEWERS} viewers on Live and {_WORKERS} workers, it takes", percent, MOST_PERCENT, "% of a core"),
        ("it is, after a look at its largest pages,", mb, MOST_MB, "MB (PSS)"),
        ("the first visit of Live loads", kb, MOST_FIRST_KB, "KB"),
    ):
        click.echo(f"{what} {value:.1f} {unit}")
        if value > most:
            outside.append(f"{what} {value:.1f} {unit}, more than {most:.0f}")
    return outside


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _first_visit_kb(address: str) -> float:
    """The page Live, all that it names, and the history that it asks for, as a browser gets them."""
    page = _loaded(f"{address}live")
    named = re.findall(rb'(?:src|href)="(/static/[^"]+)"', page[1])
    rest = [_loaded(address.rstrip("/") + each.decode().replace("&amp;", "&"))[0] for each in named]
    return (page[0] + sum(rest) + _loaded(f"{address}api/v1/history")[0]) / 1024


def _loaded(url: str) -> tuple[int, bytes]:
    """Bytes of head and body."""
    with urlopen(Request(url, headers={"Accept-Encoding": "gzip"})) as answer:
        body = answer.read()
        return len(body) + len(str(answer.headers)), body


def _view(url: str) -> None:
    with urlopen(url) as stream:
        while stream.readline():
            pass


def _work(connection: Redis, over: threading.Event) -> None:
    """Report each second what busy workers report of themselves. No worker is started."""
    names = [f"web-1-w{number}" for number in range(_WORKERS)]
    for name in names:
        connection.hset(f"rq:worker:{name}", mapping={"queues": _QUEUE, "state": "busy", "pid": 7})
        connection.sadd("rq:workers", f"rq:worker:{name}")
    history_writer.version_is_ours(connection)
    began = time.time()
    while not over.wait(1.0):
        now = time.time()
        with connection.pipeline(transaction=False) as pipeline:
            for number, name in enumerate(names):
                _report(pipeline, number, name, began, now)
            pipeline.execute()


def _report(pipeline: Pipeline, number: int, name: str, began: float, now: float) -> None:
    """What one worker reports, with a job whose memory changes."""
    usage_mb = 60 + (now * (1 + number % 7) + 20 * number) % 150
    job = LiveJob("jobs.campaigns.Export", f"{number:032}", _QUEUE, began, usage_mb, 210.0, 256.0, "items 1-50", 900)
    live = Live(
        worker=name, host="web-1", pid=1000 + number, at=now, started_at=began, worker_mb=40.0, worker_limit_mb=512.0,
        limit_mb=256.0, horse_pid=2000 + number, kept_by="watcher", jobs=70, breaches=1, recycled=2, queues=[_QUEUE],
        job=job,
    )  # fmt: skip
    history_writer.beat(pipeline, live, 60)
    samples = [Sample(ring.begin(now), usage_mb, 256.0, 40.0) for ring in RINGS]
    history_writer.write_samples(pipeline, name, samples, now)
