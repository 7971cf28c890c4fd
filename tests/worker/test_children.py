"""Children as users make them: in a loop, of other classes, with the options that their parent was enqueued with."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.group import Group
from rq.job import Job, JobStatus

from rqmem.sources import CsvFile, JsonLines, Range, as_source
from rqmem.store import ledger
from rqmem.testing import wait_until
from tests import children_jobs
from tests.conftest import StartWorker, WorkOff


def children_of(connection: Redis, parent: Job) -> list[Job]:
    ids = sorted(f"{parent.id}-child-{number}" for number in range(20))
    return [job for job in Job.fetch_many(ids, connection=connection) if job is not None]


# Options


def test_options_that_a_parent_was_enqueued_with_reach_its_children(connection: Redis, work_off: WorkOff) -> None:
    options = {"job_timeout": 77, "result_ttl": 4000, "failure_ttl": 5000, "ttl": 600, "meta": {"tenant": "a"}}
    parent = children_jobs.Parent.enqueue("night", connection=connection, retry=Retry(3), **options)
    work_off("night")
    assert parent.return_value()[:7] == ["night", 77, 4000, 5000, None, "a", parent.id]
    assert all(child.retries_left is None for child in children_of(connection, parent))


def test_what_the_class_of_the_children_says_stands_above_that(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.Parent.enqueue("night", child="Part", connection=connection, job_timeout=77)
    work_off("night")
    assert Queue("parts", connection=connection).count == 3
    assert {child.timeout for child in children_of(connection, parent)} == {33}
    work_off("parts")
    work_off("night")
    assert parent.return_value() == [6, 4, [0, 1, 2, 3], 22, 4, [4, 5, 6, 7], 17, 2, [8, 9]]


def test_what_only_the_class_of_the_parent_says_reaches_them_too(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.Parent.enqueue(connection=connection)
    work_off("jobs")
    assert parent.return_value()[:2] == ["jobs", 500]


@pytest.mark.parametrize("by", ["enqueue", "scheduled"])
def test_children_of_a_parent_at_the_front_go_to_the_front_in_order(
    connection: Redis, work_off: WorkOff, by: str
) -> None:
    queue = Queue("jobs", connection=connection)
    first = queue.enqueue("tests.sample_jobs.add", 1)
    parent = children_jobs.Numbered.enqueue(connection=connection, at_front=True)
    if by == "scheduled":
        connection.hset(parent.key, mapping={"enqueue_at_front": 1})  # as RQ keeps it for a scheduled job
        parent.meta.clear()
        parent.save_meta()
    work_off("jobs", "--max-jobs", "1")
    assert queue.job_ids == [*(f"{parent.id}-child-{number}" for number in range(3)), first.id]
    work_off("jobs", "--max-jobs", "5")
    assert [int(number) for number in connection.lrange("ran", 0, -1)] == [0, 2, 4]


# One by one


def test_children_are_dispatched_in_a_loop_as_in_the_original(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(connection=connection)
    work_off("jobs")
    assert parent.return_value() == ([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]], 4, [])
    assert connection.get("made") == b"4 4"


def test_only_those_that_were_dispatched_are_waited_for(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(skip=[0, 2], connection=connection)
    work_off("jobs")
    assert parent.return_value() == ([[3, 4, 5], [9]], 2, [])
    assert len(Job.fetch(parent.id, connection=connection).fetch_dependencies()) == 2


def test_a_job_that_dispatches_none_has_not_split(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(skip=[0, 1, 2, 3], connection=connection)
    work_off("jobs")
    assert parent.return_value() == "not split"
    assert children_of(connection, parent) == []


def test_what_is_left_can_be_dispatched_at_once(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(then="the rest", connection=connection)
    work_off("jobs")
    assert parent.return_value() == ([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]], 4, [])


def test_after_an_error_in_the_loop_no_child_is_left(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(then="raise", connection=connection)
    work_off("jobs")
    assert parent.get_status() == JobStatus.FAILED
    assert "a slip in the loop" in (parent.latest_result().exc_string or "")
    assert children_of(connection, parent) == [] and ledger.splitting(connection) == []


def test_a_parent_killed_in_the_loop_makes_no_twins(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.WithResume.enqueue(skip=[0], then="die", connection=connection)
    work_off("jobs")
    assert parent.return_value() == ([[3, 4, 5], [6, 7, 8], [9]], 3, [])
    assert connection.get("died") == b"2"


def test_children_of_two_splits_are_refused(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(then="another", connection=connection)
    work_off("jobs")
    assert "has split already" in (parent.latest_result().exc_string or "")
    assert children_of(connection, parent) == []


def test_a_retry_runs_those_of_a_few_that_failed(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OneByOne.enqueue(skip=[1], then="fail", connection=connection)
    work_off("jobs")
    assert "3 of 3 child jobs failed" in (parent.latest_result().exc_string or "")
    connection.set("mended", 1)
    parent.requeue()
    work_off("jobs")
    assert parent.return_value() == ([[0, 1, 2], [6, 7, 8], [9]], 3, [])


# Their items


def test_a_source_of_ones_own_is_iterated_too(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.OfMySource.enqueue(connection=connection)
    work_off("jobs")
    name, total, items, error = parent.return_value()[:4]
    assert (name, total, items) == ("mine", 6, [1, 2, 3])
    assert "has no length: Uncounted has no count()" in error


def test_items_have_a_length_where_their_count_is_exact(tmp_path) -> None:  # type: ignore[no-untyped-def]
    small, large = tmp_path / "small.csv", tmp_path / "large.jsonl"
    small.write_text("a,b\n1,2\n3,4\n")
    large.write_text('{"a": 1}\n' * 300_000)
    assert len(CsvFile(small)) == 2 and [row["a"] for row in CsvFile(small)] == ["1", "3"]
    assert sum(Range(5)) == 10 and list(as_source(["a", "b"])) == ["a", "b"] and len(as_source("abc")) == 3
    with pytest.raises(TypeError, match=r"JsonLines has no exact length \(its count is about 300,000\): iterate, or"):
        len(JsonLines(large))
    items = list(JsonLines(large))
    assert len(items) == 300_000 and Range(1) and not Range(0)


# In RQ's own fields


def test_rqs_meta_of_the_parent_says_how_far_its_children_are(connection: Redis, start_worker: StartWorker) -> None:
    parent = children_jobs.Meta.enqueue(connection=connection, meta={"tenant": "a"})
    worker = start_worker("jobs", "--burst")

    def far() -> bool:
        return parent.get_meta().get("rqmem") == {"children": 4, "done": 2, "failed": 1}

    wait_until(far)
    assert parent.get_status() == JobStatus.DEFERRED
    connection.set("go on", 1)
    worker.finish()
    assert parent.return_value() == {"children": 4, "done": 3, "failed": 1}
    assert parent.get_meta() == {"tenant": "a", "mine": "kept", "rqmem": parent.return_value()}
    assert {child.group_id for child in children_of(connection, parent)} == {parent.id}


def test_a_child_can_be_deleted_after_its_parent_has_ended(connection: Redis, work_off: WorkOff) -> None:
    parent = children_jobs.Parent.enqueue(connection=connection)
    work_off("jobs")
    assert parent.get_status() == JobStatus.FINISHED
    for child in children_of(connection, parent):
        child.delete()
    Group.clean_registries(connection)
    assert not connection.exists("rq:groups", Group.get_key(parent.id))
