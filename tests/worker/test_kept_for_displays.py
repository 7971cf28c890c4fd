"""What workers leave in Redis for those who look: curves, the host, totals of items, leaks, ended splits."""

from __future__ import annotations

import time

from redis import Redis
from rq import Queue

import rqmem.api
from rqmem import events
from rqmem.observe.curve import executions
from rqmem.observe.job_read import read_case
from rqmem.store import keys
from rqmem.store.history import history_reader, history_writer
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker, WorkOff


def test_a_run_has_the_curve_of_its_whole_time(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Slow.enqueue(count=8, seconds=0.1, connection=connection)
    work_off()
    [run] = read_case(connection, job.id, time.time()).runs
    assert 0 < len(run.curve_mb) <= 96 and run.curve_step_seconds > 0
    assert max(run.curve_mb) <= run.peak_mb + 0.1 and min(run.curve_mb) > 0
    last, _ = run.curve[-1]
    assert last == run.seconds, "it reaches to the end"


def test_a_breach_is_in_the_curve_of_a_plain_function(connection: Redis, work_off: WorkOff) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.grow_lists)
    work_off("--memory", "100")
    [run] = read_case(connection, job.id, time.time()).runs
    assert run.layer and max(run.curve_mb) >= 99
    [drawn] = executions(read_case(connection, job.id, time.time()))
    assert drawn.breached and max(point.memory_mb for point in drawn.points) >= 99
    assert drawn.points[0].at <= run.ended_at - run.seconds + run.curve_step_seconds + 0.01, "from its beginning"
    [in_list] = history_reader.runs(connection, "tests.sample_jobs.grow_lists")
    assert in_list.curve_mb == (), "the list of a type stays small"


def test_a_worker_tells_the_memory_of_its_host(connection: Redis, start_worker: StartWorker) -> None:
    start_worker("--name", "ada")
    wait_until(lambda: any(each.memory for each in rqmem.api.hosts(connection=connection)), 60)
    [host] = rqmem.api.hosts(connection=connection)
    assert host.memory is not None and 0 < host.memory.available_mb < host.memory.total_mb
    assert connection.pttl(keys.host(host.name)) > 0
    shown = host.to_json()
    assert shown["total_mb"] == host.memory.total_mb and "pressure_some_percentage" in shown


def test_a_job_over_a_list_says_how_many_items_it_has_in_all(connection: Redis, start_worker: StartWorker) -> None:
    sample_jobs.Slow.enqueue(count=30, seconds=0.3, connection=connection)
    start_worker("--name", "ada")

    def total() -> int | None:
        found = [each.job for each in rqmem.api.workers(connection=connection) if each.job is not None]
        return found[0].items_total if found else None

    wait_until(lambda: total() is not None, 60)
    assert total() == 30


def test_a_job_whose_children_have_ended_is_kept(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Counted.enqueue(count=20, pause=0.0, connection=connection)
    work_off("jobs")
    [ended] = rqmem.api.ended_splits(connection=connection)
    assert (ended.job_id, ended.job, ended.status) == (job.id, "tests.sample_jobs.Counted", "finished")
    assert ended.children > 1 and ended.failed == 0 and ended.peak_mb > 0
    assert ended.started_at <= ended.ended_at <= time.time()
    assert rqmem.api.splits(connection=connection) == []


def test_the_last_leak_of_a_type_has_its_kinds_of_objects(connection: Redis) -> None:
    whose = {"job": "jobs.X", "job_id": "j", "queue": "q", "worker": "ada"}
    leak = events.LeakFound(**whose, mb_per_run=1.5, runs=40, grew=[("dict", 900, 2.5)])
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [], {}, time.time(), [leak])
        pipeline.execute()
    [found] = rqmem.api.job_types(connection=connection)
    assert found.leak is not None and isinstance(found.leak.event, events.LeakFound)
    assert [tuple(each) for each in found.leak.event.grew] == [("dict", 900, 2.5)]


def test_a_long_story_keeps_its_beginning_and_its_end(connection: Redis) -> None:
    whose = {"job": "jobs.X", "job_id": "j", "queue": "q", "worker": "ada"}
    for number in range(0, 300, 30):
        lines = [
            history_writer.story_line(n, events.ChunkDone(**whose, items=1, items_done=n, memory_mb=1.0))
            for n in range(number, number + 30)
        ]
        with connection.pipeline() as pipeline:
            history_writer.write_story(pipeline, "j", lines, time.time())
            pipeline.execute()
    story = history_reader.whole_story(connection, "j")
    numbers = [each.event.items_done for each in story.told]  # type: ignore[attr-defined]
    assert numbers == [*range(20), *range(221, 300)] and story.cut_at == 19
    assert connection.llen(keys.story("j")) == history_writer.KEPT_STORY_LINES
