"""How much is done, and by how many jobs: the same figures wherever they are shown."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry

from rqmem import MemoryAwareJob
from rqmem.observe.snapshot import read_totals
from rqmem.observe.statistics import tally_of
from rqmem.prometheus.families import families
from rqmem.store.history import history_reader
from tests import children_jobs, sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import WorkOff

COUNTED, ERROR, SQUARES = ("tests.sample_jobs.Counted", "tests.sample_jobs.raise_error", "tests.sample_jobs.Squares")


def shown(redis_url: str, *arguments: str) -> Any:
    return json.loads(rqmem(*arguments, RQMEM_REDIS_URL=redis_url).stdout)


def test_rates_are_by_jobs_that_somebody_enqueued(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    """Not by children, gathers, resumes, retries."""
    for count in (95, 0, 35):
        sample_jobs.Counted.enqueue(count=count, connection=connection)  # the second finds nothing to split
    Queue("jobs", connection=connection).enqueue(sample_jobs.raise_error, retry=Retry(2))
    sample_jobs.Squares.enqueue("jobs", count=16, item_mb=20, connection=connection)
    work_off("jobs", "--memory", "128")
    types = {each["job_type"]: each for each in shown(redis_url, "report", "--json")["job_types"]}
    assert {name: each["jobs"] for name, each in types.items()} == {COUNTED: 3, ERROR: 1, SQUARES: 1}
    assert types[ERROR]["runs"] == 3 and types[SQUARES]["runs"] == 2 and types[COUNTED]["runs"] == 3 + 10 + 4 + 2
    rates = types[COUNTED]
    assert rates["splitting_rate"] == 0.6667
    assert rates["alerts_per_job"] == round(types[COUNTED]["alerts"] / 3, 4) > 0, "each split raises one"
    [status] = [each for each in shown(redis_url, "status", "--json")["job_types"] if each["job_type"] == COUNTED]
    assert (status["jobs"], status["splitting_rate"], status["alerts_per_job"]) == (3, 0.6667, rates["alerts_per_job"])
    tally = tally_of(history_reader.runs(connection, COUNTED))  # as the monitor has it
    assert (tally.jobs, tally.jobs_split) == (3, 2)
    page = {
        (sample.name, sample.labels.get("job_type")): sample.value
        for family in families(read_totals(connection, time.time()), 0.0)
        for sample in family.samples
    }
    assert page["rqmem_job_jobs_total", COUNTED] == 3 and page["rqmem_job_jobs_split_total", COUNTED] == 2


@pytest.mark.parametrize("kind", ["ends well", "resumed", "split", "stages", "fails"])
def test_items_done_of_an_ended_job_are_the_same_everywhere(
    connection: Redis, redis_url: str, work_off: WorkOff, kind: str
) -> None:
    make: dict[str, tuple[type[MemoryAwareJob], dict[str, Any], int]] = {
        "ends well": (children_jobs.Thousand, {}, 1000),
        "resumed": (sample_jobs.Squares, {"count": 16, "item_mb": 20}, 16),
        "split": (sample_jobs.Counted, {"count": 35}, 35),
        "stages": (sample_jobs.Twice, {}, 10),
        "fails": (children_jobs.Thousand, {"fails_at": 700}, 0),
    }
    job_class, arguments, items = make[kind]
    job = job_class.enqueue("jobs", connection=connection, **arguments)
    work_off("jobs", "--memory", "128")
    assert job_class.progress(job.id, connection).items == items
    assert shown(redis_url, "status", "--job", job.id, "--json")["items_done"] == items
    assert shown(redis_url, "inspect", job.id, "--json")["items_done"] == items
    for command in (["status", "--job", job.id], ["inspect", job.id]):
        ran = rqmem(*command, RQMEM_REDIS_URL=redis_url)
        told = re.findall(r"items done +([\d,]+)", ran.stdout)
        assert told == ([f"{items:,}"] if items else []), (command, ran.returncode, ran.stdout, ran.stderr)
