"""The jobs' limits are those that were promised, stand in one table each, and a config file changes what applies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy.engine import Engine

from jobs.campaign_batches import ProcessRetellAICampaignBatchJob
from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.reminders import SendAppointmentReminderJob
from jobs.sentiment import AnalyzeCallSentimentJob
from jobs.staff import BulkAssignStaffToEventTypesJob
from jobs.training import PrepareTrainingRowsJob, TrainMLModelJob
from rqmem import MemoryAwareJob
from rqmem.store.history import history_reader
from tests import forked
from tests.conftest import ROOT, StartWorker
from tests.reference_app.campaign_jobs import ON_SQLITE

KB = 1024
LIMITS: dict[type[MemoryAwareJob], tuple[float, int, int | None]] = {
    ProcessRetellAICampaignJob: (512, 50, 2 * KB),
    ProcessRetellAICampaignBatchJob: (512, 100, 2 * KB),
    TrainMLModelJob: (1024, 1000, 10 * KB),
    SendAppointmentReminderJob: (128, 100, None),
    AnalyzeCallSentimentJob: (256, 100, 5 * KB),
    BulkAssignStaffToEventTypesJob: (256, 50, 1 * KB),
}


@pytest.mark.parametrize("job", LIMITS, ids=lambda job: job.__name__)
def test_what_the_classes_declare(job: type[MemoryAwareJob]) -> None:
    assert (job.memory_limit_mb, job.chunk_size, job.bytes_per_item) == LIMITS[job]
    assert job.on_breach == "resume"


def test_a_shard_is_prepared_under_the_limits_of_the_training() -> None:
    same = PrepareTrainingRowsJob, TrainMLModelJob
    assert len({(each.memory_limit_mb, each.chunk_size, each.on_breach) for each in same}) == 1


def test_a_campaign_is_split_by_its_size_alone() -> None:
    """2 KB a customer only says how many a child may hold: 200,000 would fit at once, and take a day."""
    assert ProcessRetellAICampaignJob.split_above_items == 1000
    assert {job.split_above_items for job in LIMITS if job is not ProcessRetellAICampaignJob} == {None}


def test_the_command_prints_them_and_what_a_config_file_makes_of_them(redis_url: str, tmp_path: Path) -> None:
    name = SendAppointmentReminderJob.path()
    config = tmp_path / "rqmem.ini"
    config.write_text(f"[job {name}]\nmemory_limit_mb = 200\nchunk_size = 7\n")
    command = [sys.executable, "-m", "rqmem", "config", "--jobs", "jobs", "--json"]
    environ = {"RQMEM_CONFIG": str(config), "RQMEM_REDIS_URL": redis_url, "PATH": ""}
    done = forked.run(command, env=environ, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = {row["job_type"]: row for row in json.loads(done.stdout)["job_types"]}
    for job, (memory_mb, _, _) in LIMITS.items():
        row = rows[job.path()]
        assert row["declared"]["ceiling_mb"] == memory_mb
        assert row["applies"]["ceiling_mb"]["value"] == (200 if job.path() == name else memory_mb)
    assert rows[name]["applies"]["chunk_size"]["value"] == 7


@ON_SQLITE
def test_a_worker_goes_by_the_config_file(
    connection: Redis, database: Engine, start_worker: StartWorker, tmp_path: Path
) -> None:
    config = tmp_path / "rqmem.ini"
    config.write_text(f"[job {AnalyzeCallSentimentJob.path()}]\nmemory_limit_mb = 210\n")
    for environ in ({}, {"RQMEM_CONFIG": str(config)}):
        AnalyzeCallSentimentJob.enqueue(connection=connection)
        start_worker("analysis", "--burst", "--memory", "600", **environ).finish()
    found = history_reader.runs(connection, AnalyzeCallSentimentJob.path())
    assert [(run.outcome, run.limit_mb) for run in found] == [("ok", 210), ("ok", 256)]
