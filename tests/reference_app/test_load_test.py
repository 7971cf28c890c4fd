"""The load test: its rules on figures, and the whole on real workers with few records."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.config.load import load
from rqmem.errors import UnknownName
from scripts import load_test as load_test_script
from scripts.load import rules, sampling
from scripts.load.jobs import JOBS, named
from scripts.load.report import Found, remark
from scripts.load.running import Bench, all_ended
from scripts.load.trials import Idle, Measured, Trial
from scripts.load_test import few_of, main, own_server, trials
from tests import forked
from tests.conftest import ROOT

FEW = Trial("rqmem", "declared", "SomeJob", 100, 256.0)
GOOD = Measured(FEW, "finished", peak_mb=100.0, right=True, found="all there")
MORE = replace(GOOD, trial=replace(FEW, records=1000), peak_mb=109.0)
LOWER = replace(GOOD, trial=replace(FEW, setting="lower", memory_mb=128.0))


def load_test(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.load_test", "--folder", str(folder / "data"), *arguments]
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return forked.run(command, cwd=ROOT, env=environ, timeout=1200)


# Rules


def test_runs_that_keep_all_rules_have_no_faults() -> None:
    assert rules.faults([GOOD, MORE, LOWER]) == []


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (replace(GOOD, right=False, found="3 missing"), "records are missing or double: 3 missing"),
        (replace(GOOD, outcome="failed", error="ValueError: no"), "failed: ValueError: no"),
        (replace(GOOD, outcome="did not end"), "did not end: all there"),
        (replace(GOOD, peak_mb=257.0), "used 257 MB, 256 MB allowed"),
        (replace(GOOD, above=("SomeJob used 260.0 MB of 256 MB",)), "used 260.0 MB of 256 MB"),
        (replace(LOWER, peak_mb=129.0), "used 129 MB, 128 MB allowed"),
        (replace(LOWER, peak_mb=169.0, breaches=1), "used 169 MB, 168 MB allowed"),
        (replace(LOWER, outcome="failed", error="ValueError: no"), "failed, and not for memory"),
    ],
)
def test_each_fault_is_named_with_its_run(run: Measured, words: str) -> None:
    [fault] = rules.faults([run])
    assert words in fault
    assert fault.startswith("SomeJob, 100 records, rqmem worker --memory ")


def test_a_breach_under_a_lower_ceiling_is_no_fault() -> None:
    breached = replace(LOWER, peak_mb=150.0, breaches=1)
    stopped = replace(breached, outcome="failed", right=False, error="MemoryLimitExceeded: SomeJob used 150.0 MB")
    assert rules.faults([breached, stopped]) == []
    idle = Idle("SomeJob", 107.0, 60.0)
    assert rules.why_not(stopped, idle) == "does not fit 128 MB: its idle horse takes 107 MB, it reached 150 MB"
    assert remark(stopped, idle) == rules.why_not(stopped, idle)
    assert remark(replace(stopped, outcome="did not end", peak_mb=118.0, breaches=0), idle) == ""  # that is a fault
    assert rules.wants_preload(stopped, idle)
    assert rules.wants_preload(LOWER, idle)
    assert not rules.wants_preload(LOWER, Idle("SomeJob", 50.0, 30.0))


def test_growth_of_a_tenth_is_a_fault_of_ours_and_not_of_the_naive() -> None:
    grown = replace(MORE, peak_mb=110.0)
    naive = [replace(each, trial=replace(each.trial, way="naive")) for each in (GOOD, replace(MORE, peak_mb=900.0))]
    [fault] = rules.faults([GOOD, grown, *naive])
    assert fault == "SomeJob: its peak grew by 10%, from 100 MB with 100 records to 110 MB with 1,000"
    assert [each.share for each in rules.growths(naive)] == [pytest.approx(8.0)]
    same = [replace(each, trial=replace(each.trial, setting="fixed")) for each in (GOOD, MORE)]
    assert rules.faults([GOOD, grown, *same]) == []  # where chunks are adaptive too, those of one size tell


def test_a_model_may_be_worse_than_the_one_from_memory_by_no_more_than_it_says() -> None:
    naive = replace(GOOD, trial=replace(FEW, way="naive"), balanced_f1=0.65)
    assert rules.faults([replace(GOOD, balanced_f1=0.632), naive]) == []
    [fault] = rules.faults([replace(GOOD, balanced_f1=0.62), naive])
    assert "balanced F1 0.6200, 0.6500 in memory" in fault


def test_samples_are_thinned_without_losing_the_peak() -> None:
    samples = [(float(second), float(second % 97)) for second in range(1000)]
    thinned = sampling.thinned(samples, 100)
    assert len(thinned) == 100
    assert sampling.peak_mb(thinned) == sampling.peak_mb(samples) == 96
    assert sampling.crossed_after(samples, 95.5) == 96
    assert sampling.crossed_after(samples, 96) is None


def test_each_job_runs_as_it_declares_and_lower_and_naively_within_what_it_may_get() -> None:
    campaign = JOBS[0]
    made = trials(campaign, 1_000_000, [128], 300, naive=True)
    assert [(each.way, each.setting, each.records, each.memory_mb) for each in made] == [
        ("rqmem", "declared", 100_000, 512),
        ("rqmem", "fixed", 10_000, 512),
        ("rqmem", "fixed", 100_000, 512),
        ("rqmem", "lower", 10_000, 128),
        ("rqmem", "preload", 10_000, 128),
        ("naive", "declared", 10_000, 512),
    ]
    training = trials(JOBS[2], 100_000, [128], 300, naive=True)
    assert [(each.way, each.records) for each in training if each.setting == "declared"] == [
        ("rqmem", 1_000_000), ("naive", 100_000), ("naive", 1_000_000),
    ]  # fmt: skip
    assert [few_of(many) for many in (1, 100, 19_999, 20_000, 10**6)] == [1, 50, 9_999, 10_000, 10_000]


def test_a_job_that_there_is_not() -> None:
    with pytest.raises(UnknownName, match="did you mean TrainMLModelJob"):
        named(("TrainModelJob",))


def test_a_job_that_was_just_taken_from_its_queue_has_not_ended(connection: Redis) -> None:
    queue = Queue("load", connection=connection)
    assert all_ended(connection)
    taken = queue.enqueue(len, "ab")
    queue.remove(taken)  # as a worker does before it enters the job in a registry
    assert queue.count == queue.started_job_registry.count == 0
    assert not all_ended(connection)
    taken.set_status(JobStatus.FINISHED)
    assert all_ended(connection)


def test_data_of_an_older_version_are_made_anew(connection: Redis, tmp_path: Path) -> None:
    bench, [job] = Bench(connection, tmp_path), named(("AnalyzeCallSentimentJob",))
    bench.data_of(job, 10).mkdir(parents=True)
    file = bench.data_of(job, 10) / "app.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY)")
        database.commit()
    bench.seed(job, 10)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM calls").fetchone() == (10,)


def test_no_settings_of_this_directory_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rqmem.ini").write_text("[rqmem]\nreserve = 64\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert load(os.environ).config.reserve_mb == 64
    with own_server(tmp_path / "data"):
        assert load(os.environ).config.reserve_mb == 32
    assert load(os.environ).config.reserve_mb == 64


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_test_script, "run_all", lambda *_: Found(60, 120, [], [], [], 1.0, 0.0))
    done = CliRunner().invoke(main, ["--short", "--folder", str(tmp_path / "data"), "--output", "/dev/full"])
    assert (done.exit_code, done.stderr) == (1, "load_test: No space left on device\n")


# The whole


def test_few_records_on_real_workers(tmp_path: Path) -> None:
    output, page = tmp_path / "load.json", tmp_path / "load.html"
    chosen = ["--jobs", "ProcessRetellAICampaignJob", "--memory", "128"]
    files = ["--output", str(output), "--html", str(page)]
    done = load_test("--short", "--records", "120", *chosen, *files, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert (found["version"], found["records"], found["holds"], found["faults"]) == (
        1, {"few": 60, "many": 120}, True, [],
    )  # fmt: skip
    assert [(each["way"], each["setting"], each["records"]) for each in found["runs"]] == [
        ("rqmem", "declared", 120), ("rqmem", "fixed", 60), ("rqmem", "fixed", 120), ("rqmem", "lower", 60),
        ("rqmem", "preload", 60),
        ("naive", "declared", 60), ("naive", "declared", 120),
    ]  # fmt: skip
    for run in found["runs"]:
        assert run["outcome"] == "finished"
        assert run["right"], run["found"]
        assert 10 < run["peak_mb"] < run["ceiling_mb"]
        assert run["peak_mb"] >= max(usage for _, usage in run["samples"])
    assert {each["job"] for each in found["idle"]} == {each["job"] for each in found["runs"]}
    assert all(0 < each["preloaded_mb"] < each["idle_mb"] for each in found["idle"])
    assert [(each["way"], each["few"], each["many"]) for each in found["growth"]] == [
        ("rqmem", 60, 120), ("naive", 60, 120),
    ]  # fmt: skip
    text = page.read_text()
    assert "All rules hold" in text
    assert "Content-Security-Policy" in text
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)
    assert list((tmp_path / "data").glob("run-*")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--records", "0"], "0 is not in the range x>=1"),
        (["--memory", "32"], "32 is not in the range x>=64"),
        (["--jobs", "AnalyseCallSentimentJob"], "did you mean AnalyzeCallSentimentJob?"),
        (["--output", "no/such/directory/load.json"], "no/such/directory/load.json: there is no directory"),
        (["--folder", "/proc/load"], "/proc/load cannot be written to: "),
        (["--html", "no/such/directory/load.html"], "no/such/directory/load.html: there is no directory"),
    ],
)
def test_bad_input_is_told_before_anything_runs(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--folder", str(tmp_path / "data"), *arguments])
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
