"""The budget of a pool: who may start, who waits, who is evicted, and that deaths at any moment lose nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.worker import Worker

import rqmem.api
from rqmem import events
from rqmem.observe.job_read import read_case
from rqmem.observe.model import Pool
from rqmem.observe.next_step import outlook
from rqmem.observe.snapshot import read_status
from rqmem.show.status_text import screen
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import OK, Run
from rqmem.testing import wait_until
from tests import pool_jobs, sample_jobs
from tests.conftest import StartCommand, WorkerProcess
from tests.worker.test_pool import start_pool, wait_for_workers, workers

__all__ = ["start_pool"]


class Begun:
    """What jobs have written to a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        path = self.directory / "begun"
        return path.read_text().split() if path.exists() else []

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: set(names) <= set(self.names()), 90)

    def go(self, name: str = "") -> None:
        (self.directory / (f"go-{name}" if name else "go")).touch()

    def chunks(self, name: str) -> list[int]:
        path = self.directory / f"chunks-{name}"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    return Begun(tmp_path)


@pytest.fixture
def hold(queue: Queue, tmp_path: Path) -> Callable[..., object]:
    return lambda name, mb=10, **options: queue.enqueue(
        pool_jobs.hold_until_file, mb, str(tmp_path), name, job_id=name, **options
    )


def end(pool: WorkerProcess, begun: Begun, queue: Queue, finished: int) -> str:
    """Let all jobs end, so many of them well, and then the pool; its log."""
    begun.go()
    wait_until(lambda: queue.finished_job_registry.count == finished, 90)
    pool.process.terminate()
    return pool.finish()


def shown(connection: Redis, ready: Callable[[Pool], bool]) -> Pool:
    """The pool as a look finds it once it is so: the next look may find it otherwise."""
    seen: list[Pool] = []

    def look() -> bool:
        seen[:] = rqmem.api.pools(connection=connection)
        return bool(seen) and ready(seen[0])

    wait_until(look, 60)
    return seen[0]


def on_screen(connection: Redis) -> str:
    snapshot = read_status(connection, "here", time.time())
    return "\n".join(screen(snapshot, [], 100, None, lambda text, mood: text))


def test_no_more_jobs_run_than_the_budget_has_room_for(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    """Three workers, each new type is reserved its ceiling of 200 MB: two run, and the third waits in its queue."""
    for name in ("a", "b", "c"):
        hold(name)
    pool = start_pool("jobs", "-n", "3", "--memory", "200", "--total-memory", "450")
    wait_until(lambda: len(begun.names()) == 2, 90)  # which two: workers ask at the same time
    first, second = begun.names()
    [third] = {"a", "b", "c"} - {first, second}
    wait_for_workers(connection, "pool-1", "pool-2", "pool-3")
    wait_until(lambda: queue.job_ids == [third], 60)
    wait_until(lambda: sorted(str(each.get_state()) for each in Worker.all(connection)) == ["busy", "busy", "idle"], 60)
    begun.go(first)
    begun.wait_for(third)
    log = end(pool, begun, queue, 3)
    assert "memory budget of 450 MB for the jobs of all workers, 200 MB at most for each" in log


def test_what_an_idle_horse_holds_does_not_keep_a_job_from_its_start(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    """All three workers have a horse. Then two jobs come whose ceilings are exactly the budget."""
    learn(connection, "tests.pool_jobs.hold_until_file", 40)
    for name in "abc":
        hold(name)
    pool = start_pool("jobs", "-n", "3", "--memory", "200", "--total-memory", "400")
    begun.wait_for("a", "b", "c")
    for name in "abc":
        begun.go(name)
    wait_until(lambda: queue.finished_job_registry.count == 3, 60)
    for name in ("d", "e"):
        queue.enqueue(pool_jobs.grow_until_file, 10, str(begun.directory), name)
    begun.wait_for("d", "e")
    begun.go()
    wait_until(lambda: queue.finished_job_registry.count == 5, 60)
    pool.process.terminate()
    pool.finish()


def test_smaller_jobs_pass_one_that_does_not_fit_and_it_stays_first(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    hold("a")
    pool = start_pool(
        "jobs", "-n", "2", "--memory", "200", "--total-memory", "250",
        RQMEM_CONFIG=str(config(begun.directory, "tests.sample_jobs.add", 40)),
    )  # fmt: skip
    begun.wait_for("a")
    hold("big")
    small = [queue.enqueue(sample_jobs.add, 1, number) for number in range(30)]
    wait_until(lambda: all(job.get_status() == JobStatus.FINISHED for job in small), 90)
    wait_until(lambda: queue.job_ids == ["big"], 60)
    assert begun.names() == ["a"]
    begun.go()
    begun.wait_for("big")
    wait_until(lambda: queue.finished_job_registry.count == 32, 60)
    pool.stop()


def config(directory: Path, job_type: str, limit_mb: int) -> Path:
    path = directory / "rqmem.ini"
    path.write_text(f"[job {job_type}]\nmemory_limit_mb = {limit_mb}\n")
    return path


def test_a_burst_does_not_end_while_a_job_waits_for_room(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    for name in "abcde":
        hold(name, 1)
    begun.go()
    pool = start_pool("jobs", "-n", "3", "--memory", "200", "--total-memory", "210", "--burst")
    log = pool.finish()
    assert pool.process.returncode == 0, log
    assert sorted(begun.names()) == list("abcde") and queue.finished_job_registry.count == 5


def test_a_killed_worker_gives_its_part_back(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    hold("a")
    pool = start_pool("jobs", "-n", "2", "--memory", "200", "--total-memory", "250")
    begun.wait_for("a")
    hold("b")
    pids = wait_for_workers(connection, "pool-1", "pool-2")
    shown(connection, lambda pool: pool.waiting == 1)
    holder = queue.fetch_job("a").worker_name  # type: ignore[union-attr]
    os.kill(pids[str(holder)], signal.SIGKILL)
    begun.wait_for("b")
    begun.go()
    wait_until(lambda: queue.finished_job_registry.count >= 1 and not queue.job_ids, 60)
    pool.stop()


def test_a_waiting_job_that_is_deleted_holds_nobody_up(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    hold("a")
    pool = start_pool("jobs", "-n", "2", "--memory", "200", "--total-memory", "250")
    begun.wait_for("a")
    hold("b")
    wait_until(lambda: queue.intermediate_queue.get_job_ids() == [] and queue.job_ids == ["b"], 60)
    queue.fetch_job("b").delete()  # type: ignore[union-attr]
    hold("c")
    begun.go("a")
    begun.wait_for("c")
    end(pool, begun, queue, 2)


def test_a_job_that_declares_more_than_the_budget_gets_the_budget_as_its_ceiling(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    job = queue.enqueue(pool_jobs.declares_400, str(begun.directory))
    pool = start_pool("jobs", "-n", "2", "--total-memory", "300", "--burst")
    log = pool.finish()
    assert job.get_status() == JobStatus.FINISHED
    assert "declares 400 MB of memory; this worker allows 300 MB" in log


def evictions(connection: Redis, job_id: str) -> list[events.Evicted]:
    return [each.event for each in history_reader.story(connection, job_id) if isinstance(each.event, events.Evicted)]


def learn(connection: Redis, job_type: str, peak_mb: float) -> None:
    """Give a job type a history."""

    now = time.time()
    run = Run(job=job_type, ended_at=now, outcome=OK, seconds=1, initial_mb=8, peak_mb=peak_mb, limit_mb=300, times=50)
    assert history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [run], {}, now, [], {job_type: job_type})
        pipeline.execute()


def test_types_that_are_known_to_need_little_run_side_by_side(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    learn(connection, "tests.pool_jobs.hold_until_file", 40)
    for name in "abc":
        hold(name, 20)
    pool = start_pool("jobs", "-n", "3", "--memory", "300", "--total-memory", "350")
    begun.wait_for("a", "b", "c")
    end(pool, begun, queue, 3)


def test_jobs_of_a_known_type_run_under_leases(connection: Redis, start_pool: StartCommand, queue: Queue) -> None:
    """What they need is no whole number of bytes, and what is reserved for them is."""
    learn(connection, "tests.sample_jobs.add", 40)
    queue.enqueue_many([Queue.prepare_data(sample_jobs.add, (1, each)) for each in range(200)])
    log = start_pool("jobs", "-n", "1", "--burst", "--memory", "300", "--total-memory", "350").finish()
    assert queue.finished_job_registry.count == 200 and "lease of" in log


def test_a_job_that_can_continue_is_evicted_and_loses_nothing(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    """Both were expected to need 60 MB. Together they use more than the budget."""
    for job_type in ("tests.pool_jobs.HoldsInChunks", "tests.pool_jobs.grow_until_file"):
        learn(connection, job_type, 40)
    directory = str(begun.directory)
    job = pool_jobs.HoldsInChunks.enqueue(
        "jobs", megabytes=90, directory=directory, name="chunks", job_id="chunks", connection=connection, count=50
    )
    pool = start_pool("jobs", "-n", "2", "--memory", "150", "--total-memory", "170")
    begun.wait_for("chunks")
    queue.enqueue(pool_jobs.grow_until_file, 100, directory, "grows", job_id="grows")
    begun.wait_for("grows")
    wait_until(lambda: len(evictions(connection, "chunks")) > 0, 60)
    evicted = evictions(connection, "chunks")[0]
    assert "of 170" in evicted.reason and evicted.how == "stop"
    begun.go()
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 90)
    assert job.return_value() == 50
    done = begun.chunks("chunks")
    assert sorted(set(done)) == list(range(50))
    assert len(done) - 50 <= len(evictions(connection, "chunks"))  # a chunk each, at most
    wait_until(lambda: queue.finished_job_registry.count == 2, 60)
    assert int(connection.hget("rqmem:run:chunks", "resumes_spent") or 0) == 0
    log = pool.stop()
    told = [line for line in log.splitlines() if "evicted: the jobs of the pool use" in line and "alert" not in line]
    assert len(told) == len(evictions(connection, "chunks"))
    rules = {alert.rule for alert in history_reader.alerts(connection)}
    assert "job-evicted" in rules


def test_a_job_with_a_retry_left_is_evicted_before_one_without(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    for job_type in ("tests.pool_jobs.hold_until_file", "tests.pool_jobs.grow_until_file"):
        learn(connection, job_type, 40)
    hold("again", 200, retry=Retry(max=2))
    pool = start_pool("jobs", "-n", "2", "--memory", "300", "--total-memory", "350")
    begun.wait_for("again")
    grows = queue.enqueue(pool_jobs.grow_until_file, 200, str(begun.directory), "grows", job_id="grows")
    wait_until(lambda: len(evictions(connection, "again")) == 1, 60)
    end(pool, begun, queue, 2)
    assert grows.get_status() == JobStatus.FINISHED and not evictions(connection, "grows")
    assert begun.names().count("again") == 2


def test_a_plain_job_that_is_evicted_fails_and_says_why(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    for job_type in ("tests.pool_jobs.hold_until_file", "tests.pool_jobs.grow_until_file"):
        learn(connection, job_type, 40)
    hold("modest", 50)
    pool = start_pool("jobs", "-n", "2", "--memory", "300", "--total-memory", "300")
    begun.wait_for("modest")
    grows = queue.enqueue(pool_jobs.grow_until_file, 280, str(begun.directory), "grows", job_id="grows")
    wait_until(lambda: grows.get_status() == JobStatus.FAILED, 90)
    assert "JobEvicted: evicted from its pool and killed: the jobs of the pool use" in str(
        grows.latest_result().exc_string  # type: ignore[union-attr]
    )
    end(pool, begun, queue, 1)


def test_status_shows_the_budget_and_who_uses_it(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    hold("a", 50)
    pool = start_pool("jobs", "-n", "2", "--memory", "200", "--total-memory", "250")
    begun.wait_for("a")  # else the other worker may ask for room first, with b
    hold("b", 50)
    found = shown(connection, lambda pool: pool.waiting == 1 and pool.usage_mb > 50)
    assert (found.pool, found.budget_mb, found.reserved_mb) == ("pool", 250, 200)
    assert [(job.job_id, job.job, job.reserved_mb) for job in found.jobs] == [
        ("a", "tests.pool_jobs.hold_until_file", 200)
    ]
    assert found.jobs[0].worker == queue.fetch_job("a").worker_name  # type: ignore[union-attr]
    wait_until(lambda: "the first job has waited for room for" in on_screen(connection).partition("pools")[2], 60)
    end(pool, begun, queue, 2)


def test_workers_come_when_jobs_wait_and_go_when_they_have_nothing_to_do(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun, hold: Callable[..., object]
) -> None:
    for name in "abcd":
        hold(name, 1)
    pool = start_pool("jobs", "--autoscale", "1,3", "--total-memory", "2000")
    begun.wait_for("a", "b", "c")
    wait_for_workers(connection, "pool-1", "pool-2", "pool-3")
    log = end(pool, begun, queue, 4)
    assert pool.process.returncode == 0, log
    assert "2 workers from now on, 1 before: " in log


def for_tenant(connection: Redis, begun: Begun, name: str, whose: str | None, megabytes: int = 10) -> Job:
    return pool_jobs.HoldsForTenant.enqueue(
        "jobs", connection=connection, job_id=name, megabytes=megabytes, directory=str(begun.directory), name=name,
        whose=whose,
    )  # fmt: skip


def next_of(connection: Redis, job_id: str) -> str:
    return outlook(read_case(connection, job_id, time.time()))


def test_a_tenant_has_no_more_than_its_part_and_others_pass(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    """Each is reserved its ceiling of 100 MB; three of four workers could run acme's jobs."""
    jobs = [for_tenant(connection, begun, f"acme-{number}", "acme") for number in range(4)]
    pool = start_pool(
        "jobs", "-n", "4", "--memory", "100", "--total-memory", "1000", "--tenant-memory", "200"
    )  # fmt: skip
    wait_until(lambda: len(begun.names()) == 2, 90)
    others = [for_tenant(connection, begun, "zeta", "zeta"), for_tenant(connection, begun, "nobody", None)]
    begun.wait_for("zeta", "nobody")
    assert len(begun.names()) == 4
    found = shown(connection, lambda pool: len(pool.jobs) == 4 and len(pool.waits) == 2)
    assert found.tenant_ceiling_mb == 200 and sorted(each.tenant for each in found.jobs) == ["", "acme", "acme", "zeta"]
    assert [(each.tenant, each.reserved_mb, each.waiting) for each in found.tenants] == [
        ("acme", 200, 2), ("zeta", 100, 0)
    ]  # fmt: skip
    assert {(each.tenant, each.why, each.need_mb) for each in found.waits} == {("acme", "tenant", 100)}
    told = next_of(connection, found.waits[0].job_id)
    assert "pool pool has had no room for it for" in told and "jobs of acme have 200 of 200 MB" in told
    begun.go()
    wait_until(lambda: all(job.get_status() == JobStatus.FINISHED for job in jobs + others), 90)
    assert ", 200 MB for all of one tenant" in pool.stop()


def test_a_flood_of_one_tenant_does_not_keep_others_from_their_jobs(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    """A hundred wait at the front of the queue, also short ones that a lease could take."""
    for number in range(100):
        for_tenant(connection, begun, f"acme-{number}", "acme")
    zeta = [for_tenant(connection, begun, f"zeta-{number}", "zeta") for number in range(20)]
    for number in range(20):
        begun.go(f"zeta-{number}")
    pool = start_pool("jobs", "-n", "3", "--memory", "100", "--total-memory", "600", "--tenant-memory", "110")
    wait_until(lambda: all(job.get_status() == JobStatus.FINISHED for job in zeta), 120)
    assert len([name for name in begun.names() if name.startswith("acme")]) == 1
    pool.process.terminate()
    begun.go()
    pool.finish()


def test_a_job_may_use_no_more_than_its_tenant(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    declares = begun.directory / "rqmem.ini"
    declares.write_text("[job tests.pool_jobs.HoldsForTenant]\nmemory_limit_mb = 400\n")
    jobs = [for_tenant(connection, begun, name, whose) for name, whose in (("a", "acme"), ("b", None))]
    begun.go()
    pool = start_pool(
        "jobs", "-n", "2", "--total-memory", "600", "--tenant-memory", "300", "--burst", RQMEM_CONFIG=str(declares)
    )
    log = pool.finish()
    assert [job.return_value() for job in jobs] == [300, 400], log


def test_the_jobs_of_a_tenant_that_outgrow_its_part_are_evicted(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    learn(connection, "tests.pool_jobs.HoldsForTenant", 40)
    for name in ("first", "second"):
        for_tenant(connection, begun, name, "acme", 80)
    other = for_tenant(connection, begun, "zeta", "zeta", 80)
    pool = start_pool("jobs", "-n", "3", "--memory", "120", "--total-memory", "600", "--tenant-memory", "165")
    begun.wait_for("first", "second", "zeta")
    wait_until(lambda: any(evictions(connection, name) for name in ("first", "second")), 60)
    [evicted] = evictions(connection, "first") or evictions(connection, "second")
    assert evicted.reason.startswith("the jobs of acme use ") and evicted.reason.endswith(" MB of 165")
    assert not evictions(connection, "zeta")
    wait_until(lambda: queue.failed_job_registry.count == 1, 60)
    begun.go()
    wait_until(lambda: queue.finished_job_registry.count == 2 and other.get_status() == JobStatus.FINISHED, 60)
    # By the pool, once a second.
    [incident] = shown(connection, lambda pool: len(pool.incidents) == 1).incidents
    assert (incident.what, incident.reason) == ("evicted", evicted.reason)
    pool.stop()


def test_a_job_that_waits_for_others_of_its_type_says_so(
    connection: Redis, start_pool: StartCommand, queue: Queue, begun: Begun
) -> None:
    for name in ("a", "b", "c"):
        pool_jobs.OneAtATime.enqueue(
            "jobs", connection=connection, job_id=name, directory=str(begun.directory), name=name
        )
    pool = start_pool("jobs", "-n", "2", "--memory", "100", "--total-memory", "600")
    begun.wait_for("a")
    [limit] = read_status(connection, "here", time.time()).limits
    assert (limit.job_type, limit.concurrency, limit.admitted, limit.waiting) == ("tests.pool_jobs.OneAtATime", 1, 1, 2)
    assert next_of(connection, "b") == "waits: 1 of this type already wait in a queue or run (concurrency)"
    assert "waits: 1 of this type already wait in a queue or run" in on_screen(connection)
    end(pool, begun, queue, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--total-memory", "100", "--memory", "200"],
            "for all jobs is less than one ceiling of 200 MB",
        ),
        (["--total-memory", "100"], "a budget of 100 MB for all jobs is less than one ceiling of 256 MB"),
        (["--total-memory", "1", "--memory", "1"], "worker without a job"),
        (["--tenant-memory", "100", "--memory", "200"], "for all jobs of a tenant are less than one ceiling of 200 MB"),
        (["--tenant-memory", "100"], "for all jobs of a tenant are less than one ceiling of 256 MB"),
        (["--tenant-memory", "0"], "--tenant-memory"),
        (["--total-memory", "0"], "--total-memory"),
        (["--total-memory", "much"], "--total-memory"),
    ],
)
def test_a_budget_that_cannot_hold_a_job_gets_a_line_and_code_2(
    connection: Redis, start_pool: StartCommand, options: list[str], said: str
) -> None:
    pool = start_pool("jobs", "-n", "2", *options)
    log = pool.finish()
    assert pool.process.returncode == 2, log
    assert said in log and len(log.strip().splitlines()) == 1, log
    assert not workers(connection)
