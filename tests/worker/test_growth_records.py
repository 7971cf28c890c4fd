"""Where jobs grew that did not breach: kept for those whose peaks are records, shown by inspect, forgotten in time."""

from __future__ import annotations

import time
from pathlib import Path

from redis import Redis
from rq import Queue

from rqmem.store import keys
from rqmem.store.history import clearing, history_reader, history_writer
from rqmem.store.history.history_records import Grown
from rqmem.testing import wait_until
from rqmem.worker.peak_records import Peaks
from tests import profile_jobs
from tests.conftest import ROOT, StartWorker, WorkOff

JOB = "tests.profile_jobs.fit_with"
LINE = "held = [bytearray(2**20) for _ in range(megabytes)]"


def grown(connection: Redis, job_type: str = JOB) -> list[Grown]:
    return history_reader.grown(connection, job_type, time.time())


def test_the_lines_of_a_record_are_kept_without_a_breach(connection: Redis, work_off: WorkOff) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(profile_jobs.fit_with, megabytes) for megabytes in (40, 80, 1)]
    work_off("--memory", "256")
    highest, first = grown(connection)
    assert [highest.job_id, first.job_id] == [jobs[1].id, jobs[0].id], "the third never grew by a step"
    assert highest.peak_mb > 80 > first.peak_mb > 40
    assert LINE in highest.grew[0][1]
    assert 16 <= sum(grown_mb for grown_mb, _ in highest.grew) <= highest.peak_mb  # a busy machine misses steps
    [key] = connection.scan_iter(f"{keys.PREFIX}:grew:*")
    assert 7 * 86400 - 60 <= connection.ttl(key) <= 14 * 86400
    assert "grew" in history_reader.size(connection)
    assert clearing.clear_type(connection, JOB) > 0
    assert grown(connection) == []


def test_the_lines_of_a_job_that_gives_back_add_up_to_no_more_than_its_peak(
    connection: Redis, work_off: WorkOff
) -> None:
    Queue(connection=connection).enqueue(profile_jobs.fit_again_and_again, 80, 6)
    work_off("--memory", "256")
    [highest] = grown(connection, "tests.profile_jobs.fit_again_and_again")
    assert 80 < highest.peak_mb < 160
    assert 16 <= sum(grown_mb for grown_mb, _ in highest.grew) <= highest.peak_mb


def test_growth_is_not_charged_to_a_line_that_waited_for_the_question(connection: Redis, work_off: WorkOff) -> None:
    Queue(connection=connection).enqueue(profile_jobs.wait_after_growing)
    work_off("--memory", "256")
    [record] = grown(connection, "tests.profile_jobs.wait_after_growing")
    [(_, line)] = record.grew
    assert line.startswith("at or before tests/profile_jobs.py:")


def test_a_small_job_leaves_none(connection: Redis, work_off: WorkOff) -> None:
    Queue(connection=connection).enqueue(profile_jobs.fit_with, 1)
    work_off("--memory", "256")
    assert history_reader.runs(connection, JOB)
    assert grown(connection) == []


def test_a_breach_is_no_record_it_has_its_evidence(connection: Redis, work_off: WorkOff) -> None:
    Queue(connection=connection).enqueue(profile_jobs.grow_beyond)
    work_off("--memory", "128")
    assert history_reader.runs(connection, "tests.profile_jobs.grow_beyond")[0].layer
    assert grown(connection, "tests.profile_jobs.grow_beyond") == []


def test_a_running_job_says_where_it_grew_so_far(connection: Redis, start_worker: StartWorker, tmp_path: Path) -> None:
    job = Queue(connection=connection).enqueue(profile_jobs.fit_slowly, str(tmp_path / "go"))
    worker = start_worker("--burst", "--name", "ada", "--memory", "256")

    def lines() -> tuple[tuple[float, str], ...]:
        [live] = history_reader.workers(connection, ["ada"]) or [None]
        return live.job.grew if live is not None and live.job is not None else ()

    wait_until(lines)
    assert LINE in lines()[0][1]
    (tmp_path / "go").touch()
    worker.finish()
    assert job.get_status(refresh=True) == "finished"


def test_the_highest_of_a_week_stay_whichever_worker_wrote_them(connection: Redis) -> None:
    now = time.time()
    for peak_mb in (30.0, 90.0, 10.0, 50.0, 70.0, 20.0, 60.0, 80.0):
        with connection.pipeline() as pipeline:
            each = Grown("x.Y", f"job-{peak_mb}", "ada", now, peak_mb, 256.0, ((16.0, "x.py:1 in f: y"),))
            history_writer.write_grown(pipeline, [each])
            pipeline.execute()
    assert [each.peak_mb for each in grown(connection, "x.Y")] == [90, 80, 70, 60, 50]


def test_peaks_below_the_highest_are_no_records_until_the_next_week() -> None:
    peaks = Peaks(2, 100)
    assert [peaks.is_record("x", peak_mb, 0.0) for peak_mb in (5, 7, 4, 6, 5.5, 9)] == [
        True, True, False, True, False, True,
    ]  # fmt: skip
    assert peaks.is_record("y", 1, 0.0)
    assert peaks.is_record("x", 1, 100.0)


def test_the_worker_describes_lines_relative_to_where_it_runs(connection: Redis, work_off: WorkOff) -> None:
    Queue(connection=connection).enqueue(profile_jobs.fit_with, 40)
    work_off("--memory", "256")
    line = grown(connection)[0].grew[0][1].removeprefix("at or before ")  # it waits in that line until it is asked
    assert line.startswith("tests/profile_jobs.py:")
    assert (ROOT / "tests/profile_jobs.py").exists()
