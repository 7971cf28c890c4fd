"""Runs one job on one real worker, on data of its own, and hands back what was measured.

Each run has a worker of its own, and the server is emptied before it: nothing of an earlier run is in what it measures.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import click
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from jobs.database import create_schema, open_database
from rqmem.errors import ConfigError
from rqmem.measure import process_tree
from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from scripts import campaign_run
from scripts.bench import jobs
from scripts.bench.worker_runs import Running
from scripts.harness import error_of
from scripts.load import outcomes, receiver, sampling
from scripts.load.jobs import LoadedJob
from scripts.load.outcomes import Place
from scripts.load.trials import Measured, Trial
from seeds import ledger
from seeds.dataset_parts import parts
from seeds.large_dataset import check, fill
from seeds.retell_stand_in import Faults

QUEUE = "load"
SEED = 7
NAIVE_MOST_MB = 4096.0
"""A naive job is killed above this, to protect the machine."""

_LOOK_SECONDS = 0.05
_END_SECONDS = 20.0
_PATIENCE_SECONDS, _PATIENCE_A_RECORD = 150.0, 0.06  # before a run is given up
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED, JobStatus.SCHEDULED)
"""Scheduled: it failed, and is to be tried again later."""


@dataclass(frozen=True)
class Bench:
    """What all runs share: the server's connection, and a folder for data and copies."""

    connection: Redis
    folder: Path

    def data_of(self, job: LoadedJob, records: int) -> Path:
        return self.folder / "data" / f"{job.name}-{records}"

    def seed(self, job: LoadedJob, records: int) -> None:
        """Make the dataset, or what is missing of it. One of an older version is made again."""
        data = self.data_of(job, records)
        data.mkdir(parents=True, exist_ok=True)
        engine = open_database(f"sqlite:///{data}/app.db")
        try:
            create_schema(engine)
        except ConfigError:
            engine.dispose()
            shutil.rmtree(data)
            self.seed(job, records)
            return
        create_schema(engine, ledger.METADATA)
        check(engine, SEED, resume=True)
        with redirect_stdout(StringIO()):
            for part, count in parts(job.wanted(records), data):
                fill(engine, part, SEED, count, quiet=False)
        engine.dispose()

    def run(self, job: LoadedJob, trial: Trial) -> Measured:
        """One run. Raises `click.ClickException` where the worker ends by itself."""
        naive = trial.way == "naive"
        with self._place(job, trial.records) as place:
            arguments = job.arguments(place)
            options: dict[str, Any] = {"result_ttl": -1, "failure_ttl": -1}
            queue = Queue(QUEUE, connection=self.connection)
            if naive:
                enqueued = queue.enqueue(job.naive, kwargs=arguments, job_timeout=-1, **options)
            else:
                enqueued = job.job_class.enqueue(queue, **arguments, **options)
            began = time.monotonic()
            worker = Running(trial.command(self.connection_url, QUEUE, job.needs))
            try:
                with sampling.Sampler(worker.pid, NAIVE_MOST_MB if naive else None) as sampler:
                    in_time = self._until_ended(
                        enqueued, queue, worker, began + _PATIENCE_SECONDS + _PATIENCE_A_RECORD * trial.records
                    )
                    seconds = time.monotonic() - began
                gone = not in_time and process_tree.is_zombie(worker.pid)
            finally:  # also if this script has to end
                worker.terminate()
                ended = worker.finish(_END_SECONDS)
            if gone:
                raise click.ClickException(f"{trial.words} ended with {ended.code}: {ended.last_line}")
            measured = self._measured(job, trial, enqueued, sampler, seconds, in_time=in_time)
            check = (naive and job.naive_check) or job.check
            checked = check(place, trial.records)
            return replace(measured, right=checked.right, found=checked.words, balanced_f1=checked.balanced_f1)

    def idle_mb(self, job: LoadedJob, *, preload: bool) -> float:
        """What the job's horse takes before it does anything."""
        self.connection.flushall()
        queue = Queue(QUEUE, connection=self.connection)
        asked = queue.enqueue(jobs.usage_after_imports, list(job.needs), result_ttl=-1)
        trial = Trial("rqmem", "preload" if preload else "declared", job.name, 0, max(1024.0, job.ceiling_mb))
        worker = Running([*trial.command(self.connection_url, QUEUE, job.needs), "--burst"])
        ended = worker.finish()
        result = asked.latest_result()
        if ended.code != 0 or result is None or asked.get_status() != JobStatus.FINISHED:
            raise click.ClickException(f"the imports of {job.name} could not be measured: {ended.last_line}")
        assert isinstance(result.return_value, float)
        return result.return_value

    @property
    def connection_url(self) -> str:
        return os.environ["RQMEM_REDIS_URL"]

    @contextmanager
    def _place(self, job: LoadedJob, records: int) -> Iterator[Place]:
        """A copy of the data, an empty Redis, and the service that the job talks to."""
        self.connection.flushall()
        data, own = self.data_of(job, records), Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        _copy(data / "app.db", own / "app.db")
        os.environ["DATABASE_URL"] = f"sqlite:///{own}/app.db"
        with ExitStack() as stack:
            engine = open_database()
            stack.callback(shutil.rmtree, own, ignore_errors=True)
            stack.callback(engine.dispose)
            place = Place(data, engine, own / "model.npz")
            if job.partner == "retell":
                with redirect_stdout(StringIO()):
                    place = replace(place, calls_url=stack.enter_context(campaign_run.stand_in(Faults())))
            elif job.partner == "mail":
                os.environ["REMINDER_EMAIL_URL"], received = stack.enter_context(receiver.receiving())
                place = replace(place, received=received)
                outcomes.make_due(place)
            yield place

    def _until_ended(self, job: Job, queue: Queue, worker: Running, deadline: float) -> bool:
        """Whether the job and all jobs that it enqueued ended in time."""
        while time.monotonic() < deadline:
            if job.get_status() in _ENDED and queue.count == 0 and all_ended(self.connection):
                return True
            if process_tree.is_zombie(worker.pid):
                return False
            time.sleep(_LOOK_SECONDS)
        return False

    def _measured(
        self, job: LoadedJob, trial: Trial, enqueued: Job, sampler: sampling.Sampler, seconds: float, *, in_time: bool
    ) -> Measured:
        status = enqueued.get_status()
        outcome = "finished" if status == JobStatus.FINISHED else "failed" if in_time else "did not end"
        if sampler.killed:
            outcome = "killed"
        error = "" if status == JobStatus.FINISHED else error_of(enqueued)
        measured = Measured(
            trial,
            outcome=outcome,
            error=error[:300],
            seconds=seconds,
            peak_mb=sampling.peak_mb(sampler.samples),
            sampled_peak_mb=sampling.peak_mb(sampler.samples),
            crossed_after_seconds=sampling.crossed_after(sampler.samples, job.ceiling_mb),
            samples=sampling.thinned(sampler.samples),
        )
        if trial.way == "naive":
            return measured
        record = execution_reader.run(self.connection, enqueued.id)
        runs = [
            each
            for job_type in history_reader.types(self.connection)
            for each in history_reader.runs(self.connection, job_type)
        ]
        split_peak_mb = record.split.peak_mb if record.split else 0.0
        peaks_mb = (measured.sampled_peak_mb, record.peak_mb, split_peak_mb, *(each.peak_mb for each in runs))
        totals = history_reader.totals(self.connection, history_reader.types(self.connection))
        return replace(
            measured,
            error=measured.error or ("" if measured.finished else next(iter(record.history[-1:]), ""))[:300],
            peak_mb=max(peaks_mb),
            above=tuple(
                f"{each.job.rpartition('.')[2]} used {each.peak_mb:.1f} MB of {each.limit_mb:.0f} MB"
                for each in runs
                if each.peak_mb > each.limit_mb > 0
            ),
            breaches=int(sum(sum(each.breaches.values()) for each in totals.values())),
            resumes=record.resumes,
            children=record.split.total if record.split else 0,
            chunks=int(sum(each.chunks for each in totals.values())),
            largest_chunk=max((each.largest_chunk for each in runs), default=0),
        )


def all_ended(connection: Redis) -> bool:
    """Whether all jobs on this server have ended. RQ's registries miss a job that was just taken from its queue."""
    keys = connection.scan_iter(f"{Job.redis_job_namespace_prefix}*", count=1000, _type="hash")
    statuses: Iterator[Any] = (connection.hget(key, "status") for key in keys)
    return all(status is None or status.decode() in _ENDED for status in statuses)


def _copy(path: Path, to: Path) -> None:
    """Copy the database, with what is in its write-ahead log."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    shutil.copyfile(path, to)
