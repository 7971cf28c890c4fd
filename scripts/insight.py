"""Tests whether rqmem finds what is wrong: ``python -m scripts.insight [--minutes 5]``.

A real worker runs leaking, caching, drifting and healthy jobs (`scripts.insight_jobs`) on a Redis of its own; then
``rqmem report``, ``recommend``, ``status`` and ``exporter`` are asked. Ends with 1 if one of them does not name the
right job types, or two of them disagree.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import click
from redis import Redis
from rq import Queue

from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from rqmem.units import MB
from scripts import insight_jobs
from scripts.harness import ROOT, own_redis, running, without_settings
from scripts.insight_jobs import Caching, Drifting, Healthy, Leaking

WORKER, MEMORY_MB = "insight", 160
DRIFT_FROM_MB, DRIFT_MB = 5, 110
LEAKS_A_ROUND = 3
NAMES = {name: job.path() for name, job in insight_jobs.JOBS.items()}
_WAITING = 12
_SECONDS = 600
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Views:
    """What four commands say at one time; job types by their paths."""

    report: dict[str, dict[str, Any]]
    recommended: dict[str, dict[str, Any]]
    status: dict[str, dict[str, Any]]
    troubles: list[dict[str, str]]
    page: Samples

    def metric(self, name: str, job: str, **labels: str) -> float:
        """The value of a metric for a job type; 0 if the page has none."""
        return self.page.get((name, frozenset({"job_type": job, **labels}.items())), 0.0)

    def summed(self, name: str, job: str) -> float:
        """The sum of a metric over all other labels."""
        return sum(value for (each, labels), value in self.page.items() if each == name and ("job_type", job) in labels)


@contextmanager
def worked(url: str, progress: Callable[[int], float]) -> Iterator[int]:
    """Run rounds of all job types on a worker until ``progress(rounds)`` is 1. Yields the number of executions.

    The worker stays, idle, until the block is left.
    """
    command = ["rqmem", "worker", insight_jobs.QUEUE, "--memory", str(MEMORY_MB), "--name", WORKER]
    options = ["--log-level", "warning", "--isolation", "warm"]
    environ, nowhere = {**_environ(url), "RQMEM_HEARTBEAT": "1"}, subprocess.DEVNULL
    with (
        Redis.from_url(url) as connection,
        running(*command, *options, env=environ, stdout=nowhere, stderr=nowhere) as process,
    ):

        def wait(condition: Callable[[], object]) -> None:
            wait_until(lambda: condition() or process.poll() is not None, _SECONDS)
            if process.poll() is not None:
                raise SystemExit(f"the worker has ended with {process.returncode}")

        queue, rounds, enqueued = Queue(insight_jobs.QUEUE, connection=connection), 0, 0
        while (done := progress(rounds)) < 1:
            for _ in range(LEAKS_A_ROUND):
                Leaking.enqueue(connection=connection)
            Caching.enqueue(key=rounds, connection=connection)
            Drifting.enqueue(megabytes=DRIFT_FROM_MB + DRIFT_MB * done, connection=connection)
            Healthy.enqueue(connection=connection)
            rounds, enqueued = rounds + 1, enqueued + LEAKS_A_ROUND + 3
            wait(lambda: queue.count < _WAITING)
        wait(lambda: _ended(connection) >= enqueued)
        all_done = time.time()
        wait(lambda: any(live.at > all_done for live in history_reader.workers(connection, [WORKER])))
        yield enqueued


def look(url: str) -> Views:
    """Run the commands and read what they print."""
    report = json.loads(_command(url, "report", "--json"))
    recommended = json.loads(_command(url, "recommend", "--json"))
    status = json.loads(_command(url, "status", "--json"))

    def by_job(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {row["job_type"]: row for row in rows}

    return Views(
        by_job(report["job_types"]),
        by_job(recommended["job_types"]),
        by_job(status["job_types"]),
        status["problems"],
        _page(url),
    )


def complaints(views: Views) -> list[str]:
    """What is wrong with the views; empty if they name the right job types, with equal figures."""
    found = [f"{job} is missing in {where}" for where, job in _missing(views)]
    return found or [*_misnamed(views), *_unequal(views)]


def _missing(views: Views) -> Iterator[tuple[str, str]]:
    for job in NAMES.values():
        for where in ("report", "recommended", "status"):
            if job not in getattr(views, where):
                yield where, job
        if not views.metric("rqmem_job_runs_total", job):
            yield "the exporter's page", job


def _misnamed(views: Views) -> Iterator[str]:
    """Views that blame another job type for a leak or a breach, or none at all."""
    leaking, drifting = NAMES["Leaking"], NAMES["Drifting"]
    for what, guilty, metric in (
        ("leaks", leaking, "rqmem_job_leaks_total"),
        ("breaches", drifting, "rqmem_job_breaches_total"),
    ):
        blamed = {
            "report": {job for job, row in views.report.items() if _count(row[what])},
            "status": {job for job, row in views.status.items() if _count(row[what])},
            "exporter": {job for job in NAMES.values() if views.summed(metric, job)},
        }
        for where, jobs in blamed.items():
            if jobs != {guilty}:
                yield f"{where} reports {what} for {sorted(jobs) or 'none'}, not for {guilty} alone"
    for name, guilty in (("leak", leaking), ("breaches", drifting)):
        texts = [each["text"] for each in views.troubles if each["name"] == name]
        if len(texts) != 1 or guilty not in texts[0]:
            yield f"status reports {name} in {texts or 'no problem'}, not for {guilty}"
    if not any("Record" in each["text"] for each in views.troubles if each["name"] == "leak"):
        yield "status does not name the type of object that leaks"
    if (found := views.report[leaking]["leak_per_run_mb"]) is None or not 0.7 < found < 2.5:
        yield f"report says the leak is {found} MB a run; it is about 1.5 MB"
    for job, row in views.recommended.items():
        wanted, now = (row["recommended"] or {}).get("ceiling_mb", 0), row["ceiling_mb"]
        if (wanted > now) != (job == drifting):
            yield f"recommend advises {wanted} MB for {job}, which has {now}"


def _unequal(views: Views) -> Iterator[str]:
    """Figures of a job type on which two views disagree."""
    for job in NAMES.values():
        report, status, advice = views.report[job], views.status[job], views.recommended[job]

        def page(name: str, job: str = job) -> float:
            return views.summed(f"rqmem_job_{name}", job)

        leak_mb = report["leak_per_run_mb"]
        figures: dict[str, list[float | None]] = {
            "runs": [report["runs"], status["runs"], advice["runs"], page("runs_total")],
            "failures": [report["failed"], status["failed"], page("failures_total")],
            "breaches": [
                _count(report["breaches"]), _count(status["breaches"]),
                (advice["recommended"] or {}).get("breaches_seen"),
                page("breaches_total"),
            ],
            "leaks": [report["leaks"], status["leaks"], page("leaks_total")],
            "alerts": [report["alerts"], status["alerts"], page("alerts_total")],
            "MB a run": [leak_mb or 0.0, round(page("leak_run_bytes") / MB, 3)],
            "MB of ceiling": [report["ceiling_mb"], advice["ceiling_mb"], page("limit_bytes") / MB],
            "items": [report["items"], page("items_total")],
            "peaks": [report["runs"], page("peak_bytes_count")],
        }  # fmt: skip
        for what, values in figures.items():
            if len(set(values)) != 1:
                yield f"{what} of {job} differ: {values}"


def _count(what: Any) -> int:
    """The total of a breakdown, or the number itself."""
    return int(what["total"] if isinstance(what, dict) else what)


def _ended(connection: Redis) -> float:
    totals = history_reader.totals(connection, NAMES.values())
    return sum(each.runs for each in totals.values())


def _command(url: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "rqmem", *arguments]
    done = subprocess.run(command, env=_environ(url), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:  # status ends with 1 where something is wrong
        raise SystemExit(f"rqmem {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _page(url: str) -> Samples:
    """The exporter's page, read as Prometheus reads it."""
    from prometheus_client.parser import text_string_to_metric_families

    with running("rqmem", "exporter", "--port", "0", env=_environ(url), stderr=subprocess.PIPE, text=True) as exporter:
        assert exporter.stderr is not None
        where = next(found for line in exporter.stderr if (found := re.search(r"http://\S+/metrics", line)))[0]
        with urlopen(where, timeout=20) as answer:
            text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def _environ(url: str) -> dict[str, str]:
    return {**without_settings(), "PYTHONPATH": str(ROOT), "RQMEM_REDIS_URL": url}


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.2), default=5, show_default=True, help="How long jobs come.")
def main(minutes: float) -> None:
    """Run the jobs, ask the commands, and report whether they found what is wrong."""
    with own_redis() as url:
        began = time.monotonic()
        with worked(url, lambda _: (time.monotonic() - began) / (60 * minutes)) as count:
            wrong = complaints(look(url))
            for command in ("report", "recommend", "status"):
                click.echo(f"\n$ rqmem {command}\n{_command(url, command)}")
    click.echo("\n".join([f"{count:,} runs in {minutes:g} minutes", *wrong]))
    if wrong:
        raise SystemExit(1)
    click.echo("the right job types are named, with equal figures in report, recommend, status and exporter")


if __name__ == "__main__":
    main()
