"""What an operator asks in the morning: a leak, a spike, a breach and its resume, found wherever one may look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import StartCommand, StartWorker
from tests.receiver import Receiver

LEAKY, SQUARES, SPIKE = "tests.sample_jobs.Leaky", "tests.sample_jobs.Squares", "tests.sample_jobs.grow_in_c"
CEILING_MB = 200


def shown(redis_url: str, *arguments: str) -> Any:
    done = rqmem(*arguments, RQMEM_REDIS_URL=redis_url)
    assert done.stderr == "", done.stderr
    return done.stdout


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_night(
    connection: Redis,
    redis_url: str,
    start_command: StartCommand,
    start_worker: StartWorker,
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    log_file, report_file = tmp_path / "worker.log", tmp_path / "report.json"
    options = ("--interval", "1", "--duration", "600", "--threshold", "80", "--output-file", str(report_file))
    monitor = start_command("monitor", *options, apart=True)
    worker = start_worker(
        "--memory", str(CEILING_MB), "--name", "ada", "--log-format", "json", "--log-file", str(log_file),
        RQMEM_ALERT_URLS=receiver.url, RQMEM_HEARTBEAT="1",
    )  # fmt: skip
    wait_until(lambda: history_reader.workers(connection, ["ada"]) != [])
    leak = sample_jobs.Leaky.enqueue(seconds=22, mb_a_second=7, connection=connection)
    spike = Queue(connection=connection).enqueue(SPIKE)
    breach = sample_jobs.Squares.enqueue(count=24, item_mb=30, heavy_from=8, connection=connection)
    wait_until(lambda: breach.get_status() == JobStatus.FINISHED, 120)
    rules = {"memory-growth", "memory-usage", "ceiling-exceeded"}
    wait_until(lambda: all(any(rule in text for text in receiver.texts) for rule in rules))
    wait_until(lambda: len(history_reader.runs(connection, SQUARES)) == 2)
    wait_until(lambda: "memory-usage" not in {each.rule for each in history_reader.open_alerts(connection)})
    status = json.loads(shown(redis_url, "status", "--json") if worker.process.poll() is None else "{}")
    monitor.end()
    worker.stop()

    def one_run(job_type: str, job: Job) -> Any:
        return next(run for run in history_reader.runs(connection, job_type) if run.job_id == job.id)

    leaked, spiked = one_run(LEAKY, leak), one_run(SPIKE, spike)
    [last, first] = history_reader.runs(connection, SQUARES)
    [spike_breach], [resumed_breach] = (
        execution_reader.breaches(connection, spike.id),
        execution_reader.breaches(connection, breach.id),
    )

    # The log
    log = lines_of(log_file.read_text())
    told = {(line.get("job_id"), line.get("event")) for line in log}
    assert {(spike.id, "Breach"), (breach.id, "Breach"), (breach.id, "RunEnded"), (leak.id, "RunEnded")} <= told
    nexts = [line["next"] for line in log if line.get("event") == "Breach"]
    assert sorted(nexts)[-1].startswith("goes on from cursor 8 with chunk size 4"), nexts
    ended = next(line for line in log if (line.get("job_id"), line.get("event")) == (leak.id, "RunEnded"))
    logged_breach = next(line for line in log if (line.get("job_id"), line.get("event")) == (spike.id, "Breach"))
    checkpoints = [line for line in log if line.get("job_id") == leak.id and "usage_percentage" in line]
    assert len(checkpoints) >= 10 and checkpoints[-1]["peak_memory_mb"] == ended["peak_memory_mb"] <= leaked.peak_mb
    assert logged_breach["peak_mb"] == spike_breach.peak_mb == spiked.peak_mb

    # status
    assert status["workers"][0]["name"] == "ada"
    types = {each["job_type"]: each for each in status["job_types"]}
    assert (types[SPIKE]["failed"], types[SQUARES]["resumes"]) == (1, 1)
    assert sum(types[each]["breaches"]["total"] for each in (SPIKE, SQUARES)) == 2

    # inspect
    story = json.loads(shown(redis_url, "inspect", breach.id, "--json"))
    assert (story["executions"], story["breaches"]["total"], story["resumes"]) == (2, 1, 1)
    assert story["breach_records"][0]["peak_mb"] == resumed_breach.peak_mb == first.peak_mb
    assert story["peak_mb"] == max(first.peak_mb, last.peak_mb)
    leak_story = json.loads(shown(redis_url, "inspect", leak.id, "--json"))
    assert leak_story["peak_mb"] == leaked.peak_mb

    # alerts, and what was sent
    alerts = lines_of(shown(redis_url, "alerts", "--json"))
    raised = {(each["rule"], each["job_type"]) for each in alerts if each["state"] == "raised"}
    assert {("memory-growth", LEAKY), ("ceiling-exceeded", SPIKE), ("ceiling-exceeded", SQUARES)} <= raised
    assert {each["rule"] for each in alerts if each["state"] == "resolved"} >= {"memory-growth", "memory-usage"}
    for rule, job in raised:
        assert any(rule in text and job in text for text in receiver.texts), receiver.texts
    assert "hunter2" not in log_file.read_text() and "hunter2" not in json.dumps(alerts)

    # the monitor's report
    report = json.loads(report_file.read_text())
    assert (report["version"], report["complete"], report["ended_by"]) == (2, True, "SIGINT"), monitor.errors
    jobs = {each["job_type"]: each for each in report["job_types"]}
    assert jobs[LEAKY]["peak_mb"]["max"] == leaked.peak_mb
    assert jobs[SPIKE]["peak_mb"]["max"] == spike_breach.peak_mb
    assert jobs[SPIKE]["breaches"]["by_layer"] == {spike_breach.layer: 1}
    assert (jobs[SQUARES]["runs"], jobs[SQUARES]["resumes"], jobs[SQUARES]["items"]) == (2, 1, 24)
    assert {(each["rule"], each["job_type"]) for each in report["alerts"]} == raised
    assert report["threshold_crossings"] >= 1
