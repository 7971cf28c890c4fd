"""Django on real databases: between two jobs of a warm horse all is as between two requests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rqmem.testing import wait_until
from tests.integrations.conftest import Project, outcome

LIBRARIES = ("django.db.models", "django.core.management", "django.contrib.auth", "django.template", "psycopg")
LEFT_BEHIND = ["leave_autocommit_off", "leave_autocommit_off_and_fail", "leave_atomic_open", "leave_two_atomics_open",
               "leave_atomic_broken", "leave_connection_closed_in_atomic", "leave_raw_transaction"]  # fmt: skip


@pytest.mark.parametrize("max_age", ["0", "none"])
def test_a_transaction_that_a_job_leaves_takes_nothing_from_the_next(project: Project, max_age: str) -> None:
    jobs = [name for left in LEFT_BEHIND for name in (left, "make after", "make_at_once x", "horse")]
    results = project.results(*jobs, TEST_MAX_AGE=max_age)
    for left, made, at_once in zip(LEFT_BEHIND, results[1::4], results[2::4], strict=True):
        assert (left, type(made), type(at_once)) == (left, int, int), (made, at_once)
    assert len(set(results[3::4])) == 1, "the horse was replaced, so this shows nothing"
    assert project.results("count") == [2 * len(LEFT_BEHIND)]


def test_without_autocommit_in_the_settings_a_job_begins_its_own_transaction(project: Project) -> None:
    made, counted = project.results("make_at_once lost", "count", TEST_MAX_AGE="none", TEST_NO_AUTOCOMMIT="1")
    assert isinstance(made, int)
    assert counted == 0


@pytest.mark.parametrize("project", ["postgresql"], indirect=True)
@pytest.mark.parametrize("max_age", ["0", "none"])
def test_no_job_fails_after_the_server_ended_the_session(
    project: Project, end_backends: Callable[[str], int], max_age: str
) -> None:
    worker = project.start_worker(
        "default", "--preload", "tests.integrations.setup_django", **project.environ, TEST_MAX_AGE=max_age
    )
    for name in ("backend", "make one", "make two"):
        job = project.enqueue(*name.split())
        wait_until(lambda job=job: job.is_finished or job.is_failed)  # type: ignore[misc]
        assert isinstance(outcome(job), int)
        wait_until(lambda: "tests.integrations" not in "".join(_running(project)))
        end_backends(project.environ["TEST_POSTGRES"])
    worker.stop()
    assert project.results("count") == [2]


def _running(project: Project) -> list[str]:
    return [key.decode() for key in project.connection.scan_iter("rq:executions:*")]


@pytest.mark.parametrize("project", ["postgresql"], indirect=True)
def test_a_horse_does_not_use_the_workers_connection(project: Project) -> None:
    first, second, third = project.results(
        "backend", "backend", "count", TEST_QUERY_AT_PRELOAD="1", TEST_MAX_AGE="none"
    )
    assert first == second  # it keeps its own
    assert third == 0


def test_what_a_job_activates_for_its_thread_ends_with_it(project: Project) -> None:
    before, left, after, one_horse, same = project.results("state", "leave_state", "state", "horse", "horse")
    assert left is None
    assert before == after == ["en-us", "UTC", None, "/"]
    assert one_horse == same


def test_queries_that_debug_keeps_are_forgotten(project: Project) -> None:
    counts = project.results(*["queries"] * 3, TEST_DEBUG="1", TEST_MAX_AGE="none")
    assert len(set(counts[1:])) == 1 and counts[-1] in (1, 2)  # the second: a session's first statement


def test_rq_queues_names_the_redis_of_enqueue(project: Project) -> None:
    printed = project.python(
        "from tests.integrations.shop.jobs import See; job = See.enqueue(pk=1); print(job.origin, job.timeout)"
    )
    assert printed.split()[-2:] == ["shop", "77"]
    assert project.connection.llen("rq:queue:shop") == 1


def test_a_queue_that_rq_queues_lacks_is_one_clear_error(project: Project) -> None:
    printed = project.python(
        "from tests.integrations.shop.jobs import See\n"
        "try: See.enqueue('shp', pk=1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert "ConfigError queue 'shp' is not in RQ_QUEUES (default, shop): did you mean shop?" in printed


def test_on_commit_enqueues_when_the_row_is_there(project: Project) -> None:
    project.enqueue("make_and_tell", "chair")
    project.work_off()
    [seen] = project.connection.zrange("rq:finished:shop", 0, -1)
    from rq.job import Job

    assert outcome(Job.fetch(seen.decode(), connection=project.connection)) == "chair"


def test_django_rq_enqueues_a_job_class(project: Project) -> None:
    project.python(
        "import django_rq; from tests.integrations.shop.jobs import See\n"
        "django_rq.enqueue(See, pk=1); django_rq.get_queue('shop').enqueue(See, 1, job_timeout=5)"
    )
    assert project.connection.llen("rq:queue:default") == 1
    assert project.connection.llen("rq:queue:shop") == 1


def test_the_workers_of_django_rq_reset_django_too(project: Project) -> None:
    jobs = [project.enqueue(*name.split()) for name in ("leave_autocommit_off", "make first", "count")]
    log = project.manage("rqworker", "--burst", "default")
    assert [outcome(job) for job in jobs][2] == 1
    assert "integrations that are active in its horses: django" in log


@pytest.mark.parametrize("project", ["postgresql"], indirect=True)
def test_without_integrations_a_horse_keeps_what_django_keeps(project: Project) -> None:
    jobs = [project.enqueue(*name.split()) for name in ("leave_autocommit_off", "make lost", "count")]
    project.work_off("--no-integrations")
    assert isinstance(outcome(jobs[1]), int)
    assert project.results("count") == [0]
