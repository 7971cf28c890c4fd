"""Hooks of plugins, with real workers: when they are called, and that what they do wrong stops nothing else."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from rqmem import events, hooks, integrations
from rqmem.errors import ConfigError
from tests.conftest import StartWorker, WorkOff
from tests.misbehaving_hooks import CALLED

PLUGIN = ("--plugin", "tests.misbehaving_hooks")
PRELOAD = ("--preload", "tests.sample_jobs")  # so that a time limit is used up by the hook, and not by an import
JOBS = ("tests.sample_jobs.with_hooks", "tests.sample_jobs.WithHooks.run")
HORSES = ("warm", "fork")


def called(connection: Redis) -> list[str]:
    return [each.decode() for each in connection.lrange(CALLED, 0, -1)]


def enqueued(connection: Redis, function: str, hooks: dict[str, str] | None = None, **options: object) -> Job:
    return Queue("jobs", connection=connection).enqueue(function, kwargs={"hooks": hooks or {}}, **options)


@pytest.mark.parametrize("isolation", HORSES)
@pytest.mark.parametrize("function", JOBS)
def test_hooks_are_called_around_each_job(connection: Redis, work_off: WorkOff, function: str, isolation: str) -> None:
    first, second = enqueued(connection, function), enqueued(connection, function)
    work_off("jobs", *PLUGIN, "--isolation", isolation)
    ends = [f"ending {first.id}"] if isolation == "fork" else []
    assert called(connection) == [
        *(f"before {first.id}", f"after {first.id}", f"last {first.id} ok", *ends),
        *(f"before {second.id}", f"after {second.id}", f"last {second.id} ok", f"ending {second.id}"),
    ]


@pytest.mark.parametrize(
    ("how", "isolation"),
    [*((how, "warm") for how in ("leave", "die", "crash", "hang", "breach", "breach in C", "swallow the breach")),
     ("leave", "fork"), ("breach", "fork")],
)  # fmt: skip
def test_a_hook_after_the_job_changes_no_outcome(
    connection: Redis, work_off: WorkOff, how: str, isolation: str
) -> None:
    job = enqueued(connection, JOBS[0], {"after": how}, job_timeout=8 if how == "hang" else 180)
    following = enqueued(connection, JOBS[0])
    log = work_off("jobs", *PLUGIN, *PRELOAD, "--memory", "64", "--isolation", isolation)
    assert job.get_status(refresh=True) == following.get_status(refresh=True) == JobStatus.FINISHED
    assert job.return_value() == "done"
    assert len(job.results()) == 1
    assert f"last {following.id} ok" in called(connection)
    [line] = [line for line in log.splitlines() if "hook tests.misbehaving_hooks.after failed" in line]
    assert "the job's outcome does not change" in line
    if how in ("hang", "breach"):  # the process lives, so the others run
        assert f"last {job.id} ok" in called(connection)
    if "breach" in how:
        assert f"MemoryLimitExceeded: {JOBS[0]} used" in log


@pytest.mark.parametrize("isolation", HORSES)
def test_a_hook_that_fails_is_passed_over(connection: Redis, work_off: WorkOff, isolation: str) -> None:
    cases = [
        (function, when, how)
        for function in JOBS
        for when in ("before", "after")
        for how in ("raise", "exit", "fork", "run a job")
    ]
    jobs = [enqueued(connection, function, {when: how}) for function, when, how in cases]
    log = work_off("jobs", *PLUGIN, "--isolation", isolation)
    for job, case in zip(jobs, cases, strict=True):
        assert job.get_status(refresh=True) == JobStatus.FINISHED, case
        assert [each for each in called(connection) if job.id in each][:3] == [
            f"before {job.id}", f"after {job.id}", f"last {job.id} ok",
        ], case  # fmt: skip
    assert log.count("hook tests.misbehaving_hooks.before failed") == 4
    assert log.count("hook tests.misbehaving_hooks.after failed") == 4


@pytest.mark.parametrize(
    ("how", "error", "isolation"),
    [("breach", "MemoryLimitExceeded", "warm"), ("breach in C", "MemoryLimitExceeded", "warm"),
     ("hang", "JobTimeoutException", "warm"), ("leave", "HorseLost", "warm"), ("breach", "MemoryLimitExceeded", "fork"),
     ("leave", "HorseLost", "fork")],
)  # fmt: skip
def test_what_a_hook_uses_before_the_job_counts_as_the_jobs(
    connection: Redis, work_off: WorkOff, how: str, error: str, isolation: str
) -> None:
    job = enqueued(connection, JOBS[0], {"before": how}, job_timeout=1 if how == "hang" else 180)
    following = enqueued(connection, JOBS[0])
    work_off("jobs", *PLUGIN, *PRELOAD, "--memory", "64", "--isolation", isolation)
    result = job.latest_result()
    assert result is not None and error in (result.exc_string or "")
    if error != "JobTimeoutException":
        assert "before_job hook tests.misbehaving_hooks.before" in (result.exc_string or "")
    assert following.get_status(refresh=True) == JobStatus.FINISHED


def test_a_hook_after_a_job_that_breached_is_called_in_its_horse(connection: Redis, work_off: WorkOff) -> None:
    job = Queue("jobs", connection=connection).enqueue("tests.misbehaving_hooks.greedy")
    work_off("jobs", *PLUGIN, "--memory", "64")
    assert called(connection)[-2:] == [f"last {job.id} MemoryLimitExceeded", f"ending {job.id}"]


@pytest.mark.parametrize("how", ["raise", "leave", "breach"])
def test_a_hook_at_the_horses_end_stops_nothing(connection: Redis, work_off: WorkOff, how: str) -> None:
    job = enqueued(connection, JOBS[0], {"ending": how})
    log = work_off("jobs", *PLUGIN, "--memory", "64")
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    assert "hook tests.misbehaving_hooks.end failed" in log


@pytest.mark.parametrize("how", ["raise", "die", "hang", "breach"])
def test_a_hook_after_a_job_of_a_lease_changes_no_outcome_and_runs_no_job_twice(
    connection: Redis, work_off: WorkOff, how: str
) -> None:
    before = [enqueued(connection, JOBS[0]) for _ in range(8)]
    bad = enqueued(connection, JOBS[0], {"after": how}, job_timeout=8 if how == "hang" else 180)
    jobs = [*before, bad, *(enqueued(connection, JOBS[0]) for _ in range(8))]
    log = work_off("jobs", *PLUGIN, *PRELOAD, "--memory", "64")
    assert "lease of" in log
    assert [job.get_status(refresh=True) for job in jobs] == [JobStatus.FINISHED] * 17, log
    assert [len(job.results()) for job in jobs] == [1] * 17, log
    for hook in ("before", "after"):
        assert [each for each in called(connection) if each.startswith(hook)] == [f"{hook} {job.id}" for job in jobs], (
            log
        )


def test_a_hook_that_hangs_at_the_horses_end_is_ended(connection: Redis, work_off: WorkOff) -> None:
    job = enqueued(connection, JOBS[0], {"ending": "hang"})
    log = work_off("jobs", *PLUGIN)
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    assert "hook tests.misbehaving_hooks.end failed" in log


@pytest.mark.parametrize("how", ["raise"])
def test_a_hook_that_fails_when_the_horse_starts_stops_no_job(connection: Redis, work_off: WorkOff, how: str) -> None:
    job = enqueued(connection, JOBS[0])
    log = work_off("jobs", *PLUGIN, TEST_HOOK_AT_START=how)
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    assert "horse_started hook tests.misbehaving_hooks.start failed" in log


@pytest.mark.parametrize("how", ["raise", "die", "breach"])
def test_a_listener_that_fails_stops_no_job(connection: Redis, work_off: WorkOff, how: str) -> None:
    jobs = [enqueued(connection, JOBS[0], {"after": "raise"}) for _ in range(3)]
    log = work_off("jobs", *PLUGIN, "--memory", "64", TEST_HOOK_ON=f"on {how}")
    assert {job.get_status(refresh=True) for job in jobs} == {JobStatus.FINISHED}
    if how == "raise":
        assert "on(HookFailed) hook tests.misbehaving_hooks.hear failed: KeyError: 'missing'" in log


def test_failures_of_hooks_are_remembered(connection: Redis, work_off: WorkOff) -> None:
    job = enqueued(connection, JOBS[0], {"after": "raise"})
    work_off("jobs", *PLUGIN)
    from rqmem.store.history import history_reader

    told = [line.event for line in history_reader.story(connection, job.id)]
    [failed] = [event for event in told if isinstance(event, events.HookFailed)]
    assert failed.hook == "after_job hook tests.misbehaving_hooks.after"
    assert "misbehaving_hooks.py:" in failed.where


@pytest.mark.parametrize(
    ("plugin", "hint"),
    [
        ("tests.misbehaving_hook", "there is no module tests.misbehaving_hook: did you mean tests.misbehaving_hooks?"),
        ("jsonn", "there is no module jsonn: did you mean json?"),
        ("no.such.thing", "there is no module no"),
        ("tests.broken_module", "tests.broken_module cannot be imported: "),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(start_worker: StartWorker, plugin: str, hint: str) -> None:
    worker = start_worker("--burst", "--plugin", plugin)
    output = worker.finish()
    assert worker.process.returncode == 2, output
    [line] = [line for line in output.splitlines() if line.startswith("rqmem: ")]
    assert f"--plugin {plugin} cannot be imported" in line
    assert hint in line
    assert "Traceback" not in output


def test_plugins_are_named_by_the_environment_too(connection: Redis, work_off: WorkOff) -> None:
    job = enqueued(connection, JOBS[0])
    work_off("jobs", RQMEM_PLUGINS="json, tests.misbehaving_hooks")
    assert f"before {job.id}" in called(connection)


def test_what_is_no_function_can_be_a_hook_too() -> None:
    bound = functools.partial(nothing_of, 1)
    try:
        assert hooks.after_job(bound) is bound
        assert hooks.registered("after_job")[0] is bound  # the last comes first
        assert hooks.name_of(bound) == "functools.partial"
    finally:
        hooks._in_horse["after_job"].remove(bound)


def nothing_of(number: int, job: Job, outcome: str) -> None: ...


def test_an_integration_that_does_not_fit_its_library_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(integrations, "_waiting", {"no_such_integration": "json"})
    monkeypatch.setattr(integrations, "_loaded", [])
    assert integrations.load_imported() == integrations.load_imported() == []
    assert caplog.text.count("integration no_such_integration does not fit what is installed: ModuleNotFoundError") == 1


async def later(job: Job) -> None: ...


def nothing() -> None: ...


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (lambda: hooks.before_job(nothing), r"hooks.before_job: nothing cannot be called as nothing\(job\)"),
        (lambda: hooks.before_job(later), "later is no plain function"),
        (lambda: hooks.after_job(3), "3 is no plain function"),  # type: ignore[type-var]
        (lambda: hooks.on("Breach"), "did you mean rqmem.events.Breach?"),  # type: ignore[arg-type]
        (lambda: hooks.on(json.JSONDecodeError), "give a class of rqmem.events"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_a_hook_is_refused(register: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        register()
