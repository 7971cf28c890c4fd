"""The JSON of every command, against golden files: one Redis with something of everything in it.

``RQMEM_WRITE_GOLDEN=1 pytest tests/cli/test_json.py`` writes the files anew; the difference shows what has changed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue
from rq.job import Job

from rqmem import __version__, events
from rqmem.cli import main
from rqmem.store import codec, keys
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Grown, LiveJob, Told
from rqmem.store.history.samples import RINGS, Sample
from tests.conftest import ROOT
from tests.journal_filling import WORKER, a_live, a_run, fill, raise_alert, register, remember, tell

GOLDEN = ROOT / "tests" / "golden"
JOB = "shop.jobs.Rebuild"
Run = Callable[..., Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_OF_THE_MOMENT = re.compile(r"(^|_)(at|since|until|seconds|size_mb|rate)$")
_OF_THE_MACHINE = ("host", "redis")


@pytest.fixture
def filled(connection: Redis) -> Redis:
    """Three workers (one of RQ's own, one silent), two queues, three job types, a split, breaches, alerts, a leak."""
    now = time.time()
    live = LiveJob(JOB, "j1", "q", now - 30, 120.5, 158.7, 256.0, "customers 100-150", 150, ((80.5, "a.py:7 rows"),))
    register(connection, WORKER, "q", state="busy", live=a_live(WORKER, live))
    register(connection, "bob", "q", "mail", state="idle")
    register(connection, "cleo", "mail", state="busy")
    queue = Queue("q", connection=connection)
    for job_id in ("j1", "j2"):
        queue.enqueue("tests.sample_jobs.nothing", job_id=job_id)
    Job.fetch("j1", connection).set_status("started")
    Job.fetch("j1", connection).prepare_for_execution(WORKER, connection.pipeline())
    connection.lrem(queue.key, 1, "j1")
    connection.hset(Job.key_for("j1"), mapping={"worker_name": WORKER, "status": "started"})
    fill(connection, JOB, "j1")
    whose = {"job": JOB, "job_id": "j1", "queue": "q", "worker": WORKER}
    ended = events.RunEnded(
        **whose, outcome="ok", duration_seconds=12.3, initial_memory_mb=40.0, peak_memory_mb=158.7,
        final_memory_mb=60.3, memory_limit_mb=256.0, collections=4, freed_mb=31.0, chunks=24, items=1200,
        growth_kb_per_item=2.5,
    )  # fmt: skip
    resumed = events.Resumed(
        **whose, cause="breach", cursor="150", chunk_size=25, resumes=1, max_resumes=5, spent=1, delay_seconds=2.0
    )
    tell(connection, [Told(now + 1, resumed), Told(now + 2, ended)])
    breach = events.Breach(
        **whose, used_mb=271.3, limit_mb=256.0, peak_mb=274.0, layer="watch", processes=2, operation="loaded",
        where="a.py:7", baseline_mb=31, curve=[(0.5, 200.0), (0.0, 271.3)], grew=[(106.0, "a.py:7 rows")],
        kinds=[("dict", 900, 2.5)], checkpoints=[("loaded", 80.0)], tree=[(7, "python", 271.3)],
        segments_left=[("/dev/shm/x", 1.0)], beyond_reach=[(9, "sudo")],
    )  # fmt: skip
    connection.lset(keys.breaches("j1"), 0, codec.to_json(breach))
    remember(connection, *(a_run(JOB, f"r{number}", now) for number in range(30)))
    remember(connection, replace(a_run("shop.jobs.Mail", "m1", now), outcome="ValueError", chunks=0, items=0))
    remember(connection, replace(a_run("shop.jobs.Split", "parent", now), children=3, layer="watch", resumed=True))
    split = {"split_queue": "q", "split_sealed": 1, "split_total": 3, "split_ended": 1, "split_failed": 1}
    connection.hset(keys.run("parent"), mapping={**split, "split_started_at": now - 10, "job": "shop.jobs.Split"})
    with connection.pipeline() as pipeline:
        history_writer.write_samples(
            pipeline, "cleo", [Sample(ring.begin(now), 80.0, 256.0, 30.0) for ring in RINGS], now
        )
        grown = Grown(JOB, "j1", WORKER, now, 158.7, 256.0, ((80.5, "a.py:7 rows"),))
        pipeline.zadd(keys.grew(JOB, int(now // keys.WEEK_SECONDS)), {codec.to_json(grown): 158.7})
        pipeline.execute()
    raise_alert(connection, JOB, "above 90 %")
    return connection


@pytest.fixture
def run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; what it prints as JSON, of several lines a list."""
    monkeypatch.chdir(ROOT)
    for name in list(os.environ):
        if name.startswith(("RQMEM_", "MEMORY_")) and name != "RQMEM_WRITE_GOLDEN":
            monkeypatch.delenv(name)
    monkeypatch.setenv("RQMEM_REDIS_URL", redis_url)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code in (0, 1), done.output
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def normalised(value: Any, name: str = "") -> Any:
    """The value with what differs from run to run as zeros: its form stays."""
    if isinstance(value, dict):
        moving = name in ("redis_memory", "system")
        return {key: None if moving else normalised(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [normalised(each, name) for each in value]
    if isinstance(value, str):
        text = _TIME.sub(lambda found: re.sub(r"\d", "0", found[0]), value).replace(__version__, "VERSION")
        text = re.sub(r"\d+-\d+", "0-0", text) if name == "id" else text
        text = re.sub(r"(20\d\d-\d\d-\d\d )?\d\d:\d\d:\d\d", "00:00:00", text)
        return "" if name in _OF_THE_MACHINE else text
    moving = name in _OF_THE_MACHINE or _OF_THE_MOMENT.search(name)
    return type(value)() if moving and isinstance(value, (int, float)) and not isinstance(value, bool) else value


def compare(name: str, shown: Any) -> None:
    """``shown`` is as the golden file of that name has it."""
    text = json.dumps(normalised(shown), indent=2, ensure_ascii=False) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("RQMEM_WRITE_GOLDEN"):
        file.write_text(text)
    assert json.loads(text) == json.loads(file.read_text())
    assert text == file.read_text(), "the order of names has changed"


COMMANDS = {
    "status": ["status", "--json"],
    "status-worker": ["status", "--worker", WORKER, "--json"],
    "status-job": ["status", "--job", "parent", "--json"],
    "inspect": ["inspect", "j1", "--json"],
    "inspect-split": ["inspect", "parent", "--json"],
    "top": ["top", "--worker", WORKER, "--once", "--json"],
    "report": ["report", "--json"],
    "recommend": ["recommend", "--json"],
    "alerts": ["alerts", "--json"],
    "journal": ["journal", "size", "--json"],
    "config-jobs": ["config", "--jobs", "--json"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_the_json_of_its_golden_file(filled: Redis, run: Run, name: str) -> None:
    compare(name, run(*COMMANDS[name]))


def test_the_monitor_writes_the_json_of_its_golden_file(filled: Redis, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    CliRunner().invoke(main, ["monitor", "--duration", "1", "--plain", "--threshold", "40", "--output-file", str(file)])
    shown = json.loads(file.read_text())
    compare("monitor", {**shown, "samples": shown["samples"][:1]})


def test_config_prints_the_json_of_its_golden_file(filled: Redis, run: Run) -> None:
    shown = run("config", "--memory", "300", "--json")
    shown["settings"] = [each for each in shown["settings"] if each["name"] in ("redis", "memory", "chunk_size")]
    shown["settings"][0]["value"] = ""
    compare("config", {**shown, "integrations": []})


def test_doctor_prints_the_json_of_its_golden_file(run: Run) -> None:
    shown = run("doctor", "--no-redis", "--no-self-test", "--json")
    [memory] = [each for each in shown["findings"] if each["name"] == "memory"] or shown["findings"][:1]
    compare("doctor", {**shown, "healthy": True, "findings": [{**memory, "mark": "ok", "text": "", "advice": ""}]})


OLD_NAMES = {"schema_version", "types", "troubles", "limit_mb", "memory_limit_mb", "seconds", "resumed_count", "bytes"}


def check(value: Any, name: str = "", *, size: bool = False) -> None:
    """The value, which has this name, keeps the rules of the vocabulary."""
    assert name not in OLD_NAMES and (name != "job" or not isinstance(value, str)), name
    if isinstance(value, dict):
        for key, each in value.items():
            check(each, key, size=name.endswith("_mb"))
    elif isinstance(value, list):
        for each in value:
            check(each, size=name.endswith("_mb"))
    elif (size or name.endswith("_mb")) and value is not None:
        assert isinstance(value, float), f"{name}: {value!r}"
    elif name in ("at", "since", "until") or name.endswith("_at"):
        assert value in (None, "0000-00-00T00:00:00.000Z"), f"{name}: {value!r}"
    elif "seconds" in name:
        assert name.endswith("_seconds") and isinstance(value, float | None), f"{name}: {value!r}"
    if name in ("job_types", "workers") and isinstance(value, list):
        assert all(("job_type" if name == "job_types" else "name") in each for each in value)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_all_json_has_one_vocabulary(file: Path) -> None:
    shown = json.loads(file.read_text())
    for each in shown if isinstance(shown, list) else [shown]:
        assert next(iter(each.items())) == ("version", 2)
        check(each)
