"""Every key that is in Redis is in the table of keys, with its type and its time to live."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import replace

from redis import Redis

import rqmem
from rqmem.rq_names import Queue
from rqmem.store import actions, executions, keys, lease, pausing
from rqmem.store.execution_records import Owner
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Grown
from rqmem.store.lease_connection import LeaseConnection
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker
from tests.journal_filling import a_pool, a_run, fill, fill_what_jobs_need

SHORT_LIVED = {"probe", "mending", "parenttold:{job_id}"}


def entry_of(name: str) -> keys.Key:
    """The entry with the longest pattern that fits."""
    fitting = [each for each in keys.TABLE if fnmatch.fnmatchcase(name, each.pattern())]
    assert fitting, f"{name} is in no entry of keys.TABLE"
    return max(fitting, key=lambda each: len(each.pattern()))


def checked(connection: Redis) -> set[str]:
    """Templates of all keys that are there, each as its entry says."""
    found = set()
    for raw in connection.scan_iter(f"{keys.PREFIX}:*", count=1000):
        name, kind, seconds = raw.decode(), connection.type(raw).decode(), connection.ttl(raw)
        if seconds == -2:  # it has expired meanwhile
            continue
        entry = entry_of(name)
        assert kind == entry.type, name
        if entry.expires is False:
            assert seconds == -1, f"{name} expires"
        else:
            assert seconds >= 0, f"{name} never expires"
            assert entry.expires is True or seconds <= entry.expires, f"{name} lives for {seconds} s"
        found.add(entry.template)
    return found


def take_a_job(connection: Redis) -> None:
    for number in range(2):
        Queue("leased", connection=connection).enqueue("time.time", job_id=f"leased-{number}")
    link = LeaseConnection(connection, "ada", "a token")
    link.send_take(["leased"], 2, Owner("", "ada", "", "host", 1, 2))
    assert len(link.read_batch().jobs) == 2
    assert lease.give_back(connection, "ada", "a token", keep="leased-0") == 1
    link.close()


def test_every_key_has_its_type_and_time_to_live(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Counted.enqueue(count=20, pause=0.2, connection=connection)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: connection.exists(keys.gathered(job.id)))
    found = checked(connection)
    worker.finish()
    found |= checked(connection)
    fill(connection, "jobs.Type", "one")
    fill_what_jobs_need(connection, "two")
    now = time.time()
    with connection.pipeline() as pipeline:
        history_writer.write_grown(pipeline, [Grown("jobs.Type", "one", "ada", now, 158.7, 256.0, ())])
        history_writer.count_dropped(pipeline, {"events": 1})
        history_writer.write_pool(pipeline, a_pool("p"), 60)
        of_tenant = replace(a_run("jobs.Type", "one", now), tenant="acme", mb_seconds=1.0)
        history_writer.write_runs(pipeline, [of_tenant], {}, now)
        pipeline.sadd(keys.split_below("two"), 1)
        pipeline.zadd(keys.DELAYED, {"two": now})
        pausing.pause(pipeline, "jobs")
        executions.expire_run(pipeline, "two")
        pipeline.execute()
    take_a_job(connection)
    rqmem.enqueue_many("jobs", [("time.monotonic", ())], connection=connection)
    actions.note(connection, actions.ActionRecord("pause", "ada", "command line", queue="jobs"))
    found |= checked(connection)
    assert {each.template for each in keys.TABLE} - found <= SHORT_LIVED


def test_a_run_is_forgotten_whole(connection: Redis) -> None:
    of_run = keys.forgotten("run ends", "one")
    for occasion in ("job is done", "split is undone"):
        assert set(keys.forgotten(occasion, "one")) < set(of_run)  # type: ignore[arg-type]
    for name in of_run:
        connection.set(name, 1)
    with connection.pipeline() as pipeline:
        executions.finish(pipeline, "one", 0)
        pipeline.execute()
    assert not connection.exists(*of_run)


def test_no_key_that_running_jobs_need_is_of_the_journal() -> None:
    for each in keys.TABLE:
        in_journal = any(
            fnmatch.fnmatchcase(each(*"abc"[: each.template.count("{")]), pattern) for pattern in keys.JOURNAL_PATTERNS
        )
        assert in_journal == ("journal" in each.forgotten), each
