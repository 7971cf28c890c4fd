"""``rqmem report`` as people run it: a real Redis, a journal filled as workers fill it, and real workers' own."""

from __future__ import annotations

import html
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from markupsafe import escape
from redis import Redis
from rq import Queue

from rqmem.cli import main
from rqmem.observe.as_json import of_report
from rqmem.observe.period_read import period_of, read_report
from rqmem.policy.histogram import RATIO
from rqmem.show.report_text import to_text
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import Run
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, WorkOff
from tests.journal_filling import a_run, fill

JOB, GONE = "jobs.campaigns.ProcessRetellAICampaignJob", "removed.long_ago.Job"
SQUARES = "tests.sample_jobs.Squares"
HOUR, DAY = 3600.0, 86400.0
Report = Callable[..., Result]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

NOTE_REQUESTS = """<script>
const asked = [];
document.addEventListener("securitypolicyviolation", event => asked.push(event.blockedURI));
addEventListener("load", () => setTimeout(() => {
  performance.getEntriesByType("resource").forEach(entry => asked.push(entry.name));
  document.body.dataset.asked = JSON.stringify(asked);
}, 1000));
</script>"""


@pytest.fixture
def report(redis_url: str, connection: Redis) -> Report:
    """As typed, but within this process, which is quicker."""
    return lambda *options: CliRunner().invoke(main, ["report", *options], env={"RQMEM_REDIS_URL": redis_url})


def ended(connection: Redis, at: float, *runs: Run, alerts: int = 0) -> None:
    """Runs that a worker wrote at that time."""
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        raised = {(runs[0].job, "usage"): alerts} if alerts else {}
        history_writer.write_runs(pipeline, [replace(run, ended_at=at) for run in runs], raised, at)
        pipeline.execute()


def a_breach(job: str, limit_mb: float = 256.0, layer: str = "watch") -> Run:
    run = a_run(job, "j2", 0)
    return replace(run, outcome="MemoryLimitExceeded", peak_mb=limit_mb + 2, limit_mb=limit_mb, layer=layer)


def as_json(report: Report, *options: str) -> Any:
    done = report("--json", *options)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def fill_two_days(connection: Redis, job: str = JOB) -> float:
    """A run an hour; since yesterday they use more, and two of them were stopped. Returns when that was over."""
    now = time.time()
    for hours in reversed(range(49)):
        ended(
            connection, now - hours * HOUR, replace(a_run(job, f"j{hours}", 0), peak_mb=120.0 if hours > 24 else 180.0)
        )
    ended(connection, now - 2 * HOUR, a_breach(job), replace(a_breach(job, layer="kernel"), resumed=True), alerts=3)
    return now


# What it tells


def test_text_has_all_that_happened(connection: Redis) -> None:
    now = fill_two_days(connection)
    ended(connection, now, replace(a_run(GONE, "j1", 0), children=4))
    before = {key: connection.dump(key) for key in connection.scan_iter()}
    shown = to_text(read_report(connection, "a Redis", now - DAY, now, warning_fraction=0.8))
    for words in (
        "rqmem report on a Redis, 24 h ",
        f"{JOB}: 27 runs, 1 failed, 1 resumed, 2 breaches (by watch 1, kernel 1), 3 alerts",
        "peak 258 MB; half stay within 180, 90 % within 180, 99 % 258",
        "the highest is 101% of its ceiling of 256 MB",
        "peak MB per 1,000 items",
        "7.8 MB freed per collection",
        "in the 24 h 0 min before: 1 runs an hour (now 1.1, +",
        "breached 0.0% (now 7.4%)",
        f"{GONE}: 1 run, 1 split",
        "in all: ",
    ):
        assert words in shown
    assert {key: connection.dump(key) for key in connection.scan_iter()} == before, "it only reads"


def test_json_has_the_same_by_its_schema(connection: Redis) -> None:
    now = fill_two_days(connection)
    shown = of_report(read_report(connection, "a Redis", now - DAY, now, warning_fraction=0.8))
    assert json.loads(json.dumps(shown)) == shown
    [job] = shown["job_types"]
    assert (shown["version"], shown["step_seconds"], shown["notes"]) == (2, 3600, [])
    assert {name: job[name] for name in ("runs", "failed", "resumes", "splits", "alerts", "collections")} == {
        "runs": 27, "failed": 1, "resumes": 1, "splits": 0, "alerts": 3, "collections": 108,
    }  # fmt: skip
    assert job["breaches"] == {"total": 2, "by_layer": {"watch": 1, "kernel": 1}}
    assert job["ceiling_mb"] == 256
    assert (job["source"], job["peak_mb"]["p50"], job["peak_mb"]["max"]) == ("runs", 180, 258)
    assert job["freed_per_collection_mb"] == shown["totals"]["freed_per_collection_mb"] == 7.75
    assert job["alerts_per_job"] == pytest.approx(3 / 27, abs=1e-4)
    trend = job["trend"]
    assert trend["runs_per_hour"]["before"] == 1
    assert trend["breached_share"] == {"now": pytest.approx(2 / 27, abs=1e-4), "before": 0}
    assert 120 <= trend["p90_mb"]["before"] <= 120 * RATIO
    assert 180 <= trend["p90_mb"]["now"] <= 180 * RATIO
    assert sum(step["runs"] for step in job["steps"]) == 27
    assert [step["breaches"]["total"] for step in job["steps"] if step["breaches"]["total"]] == [2]
    assert job["steps"] == sorted(job["steps"], key=lambda step: step["at"])


def test_what_is_printed_and_what_is_written(connection: Redis, report: Report, tmp_path: Path) -> None:
    fill(connection, JOB, "j1")
    done = report()
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{JOB}: 1 run, 1 alert, 1 leak found (1.5 MB a run)\n  peak 158.7 MB" in done.stdout
    for name, begin in (("report.txt", "rqmem report on"), ("report.json", "{"), ("plain", "rqmem report on")):
        assert report("--output", str(tmp_path / name)).exit_code == 0
        assert (tmp_path / name).read_text().startswith(begin)
    assert report("--output", str(tmp_path / "plain"), "--format", "json").exit_code == 0
    assert json.loads((tmp_path / "plain").read_text())["job_types"][0]["job_type"] == JOB


def test_one_job_type_by_the_end_of_its_name(connection: Redis, report: Report) -> None:
    fill(connection, JOB, "j1")
    fill(connection, GONE, "j2")
    shown = as_json(report, "--job", "ProcessRetellAICampaignJob")
    assert (shown["job_type"], [job["job_type"] for job in shown["job_types"]]) == (JOB, [JOB])
    done = report("--job", "ProcessRetellCampaignJob")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"did you mean {JOB}?" in done.stderr


def test_more_runs_than_are_kept_one_by_one_are_all_counted(connection: Redis, report: Report) -> None:
    ended(connection, time.time(), *[a_run(JOB, f"j{number}", 0) for number in range(250)])
    [job] = as_json(report)["job_types"]
    assert (job["runs"], job["source"]) == (250, "tallies")
    assert 158.7 <= job["peak_mb"]["p50"] <= 158.7 * RATIO
    assert "peaks up to 5 % too high" in report().stdout


# Times


def test_days_for_what_is_longer_than_two_days(connection: Redis) -> None:
    now = time.time()
    for days in reversed(range(14)):
        ended(connection, now - days * DAY, a_run(JOB, f"j{days}", 0))
    shown = of_report(read_report(connection, "a Redis", now - 6 * DAY, now, warning_fraction=0.8))
    [job] = shown["job_types"]
    assert (shown["step_seconds"], job["runs"], len(job["steps"])) == (86400, 7, 7)
    assert job["trend"]["runs_per_hour"]["before"] == pytest.approx(1 / 24, abs=1e-3)


def test_a_time_before_the_journal_is_said(connection: Redis, report: Report) -> None:
    ended(connection, time.time() - 5 * HOUR, a_run(JOB, "j1", 0))
    done = report("--since", "24h")
    assert re.search(
        r"note: the journal begins at \d{4}-\d\d-\d\dT\d\d:00:00Z: nothing is known of the time", done.stdout
    )
    assert as_json(report, "--since", "2h")["job_types"] == []
    quiet = report("--since", "2h").stdout
    assert "no job ended since" in quiet
    assert f"nothing happened meanwhile to {JOB}" in quiet
    [job] = as_json(report, "--since", "24h")["job_types"]
    assert job["trend"] is None


def test_an_empty_journal_says_what_to_run(report: Report) -> None:
    done = report()
    assert done.exit_code == 0
    assert "note: the journal is empty: 'rqmem worker' writes it while jobs run" in done.stdout
    assert as_json(report)["job_types"] == []


@pytest.mark.parametrize(("since_days", "by_day", "known"), [(0.04, False, True), (1, False, True), (1.9, False, False),
                                                             (2.5, True, True), (14, True, True), (30, True, False),
                                                             (90, True, False)])  # fmt: skip
def test_it_compares_with_what_the_journal_still_has(since_days: float, by_day: bool, known: bool) -> None:
    now = 1_790_000_123.0
    period = period_of(now - since_days * DAY, now, now - 31 * DAY)
    assert period.step_seconds == (DAY if by_day else HOUR)
    assert period.since % period.step_seconds == 0
    assert period.since <= max(now - since_days * DAY, now - 30 * DAY) < period.since + period.step_seconds
    assert (period.before_since is not None) == known
    if period.before_since is not None:
        kept = 31 * DAY if by_day else 49 * HOUR
        assert now - period.before_since <= kept
        assert abs(period.before_seconds - period.seconds) <= period.step_seconds


# The page


def test_the_page_is_one_file_with_its_script_in_it_once(connection: Redis, report: Report, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    evil = 'jobs.<script>alert("x")</script>.</title>Evil&amp;'
    fill_two_days(connection, evil)
    fill(connection, JOB, "j1")
    file = tmp_path / "report.html"
    done = report("--output", str(file))
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"report: {file} (2 job types, 28 runs, 2 breaches)\n"
    page = file.read_text()
    assert page.count("plotly.js v") == 1
    assert "<script>alert" not in page
    assert str(escape(evil)) in page
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", ours)
    assert "default-src 'none'" in page
    assert stat.S_IMODE(file.stat().st_mode) & 0o600 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"], "nothing is left beside it"


def test_the_page_opens_from_disk_with_plots_and_asks_the_network_for_nothing(
    connection: Redis, report: Report, tmp_path: Path
) -> None:
    pytest.importorskip("plotly")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    fill_two_days(connection, 'jobs.<script>document.title="broken"</script>.Job')
    fill(connection, JOB, "j1")
    file = tmp_path / "report.html"
    assert report("--output", str(file)).exit_code == 0
    file.write_text(file.read_text().replace("</head>", f"{NOTE_REQUESTS}</head>", 1))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2000",
         "--virtual-time-budget=20000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    shown = done.stdout
    asked = re.search(r'data-asked="([^"]*)"', shown)
    assert asked is not None, done.stderr[-2000:]
    assert json.loads(html.unescape(asked[1])) == []
    assert "<title>rqmem report</title>" in shown
    for name in ("plot-overview", "plot-0-over-time", "plot-0-distribution", "plot-1-over-time"):
        assert re.search(rf'id="{name}" class="[^"]*js-plotly-plot', shown), f"{name} is not drawn"
    assert shown.count('class="point"') >= 20


def test_without_plotly_a_page_is_refused_before_anything_else(tmp_path: Path) -> None:
    code = "import sys; sys.modules['plotly'] = None; from rqmem.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "--format", "html", "--url", "redis://127.0.0.1:1"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "rqmem: --format html draws with plotly, which is not installed: pip install 'rqmem[report]'\n"
    )


# What is wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "soon"], "--since='soon': give how long ago"),
        (["--since", "2999-01-01"], "that lies ahead"),
        (["--format", "pdf"], "'pdf' is not one of 'text', 'json', 'html'"),
        (["--output", "."], "--output .: that is a directory; name a file in it"),
        (["--output", "/nowhere/report.txt"], "there is no directory /nowhere"),
        (["--job", "Nothing"], "no job type 'Nothing': the journal has none like it"),
    ],
)
def test_bad_input_is_one_line(report: Report, options: list[str], message: str) -> None:
    done = report(*options)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


def test_a_password_is_never_told(connection: Redis, redis_url: str, report: Report) -> None:
    fill(connection, JOB, "j1")
    connection.config_set("requirepass", "hunter2")
    try:
        with_password = redis_url.replace("unix://", "unix://:hunter2@")
        shown = [report("--url", with_password, "--format", form) for form in ("text", "json", "html")]
    finally:
        Redis.from_url(redis_url, password="hunter2").config_set("requirepass", "")
    assert [done.exit_code for done in shown] == [0, 0, 0], shown[0].stderr
    assert not any("hunter2" in done.stdout + done.stderr for done in shown)


def test_a_page_is_not_poured_over_a_terminal(redis_url: str) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "rqmem", "report", "--format", "html", "--url", redis_url],
        cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert "give --output FILE too" in done.stderr


# By a real worker


def test_what_a_real_worker_did_with_the_figures_of_status(
    connection: Redis, redis_url: str, work_off: WorkOff, tmp_path: Path
) -> None:
    sample_jobs.Squares.enqueue("q", count=24, item_mb=30, heavy_from=8, connection=connection)
    for number in range(3):
        sample_jobs.Squares.enqueue("q", count=number + 8, connection=connection)
    Queue("q", connection=connection).enqueue("tests.sample_jobs.raise_error")
    work_off("--queue", "q", "--memory", "200", "--log-level", "error")
    # From a directory that none of these jobs can be imported in.
    done = rqmem("report", "--json", directory=tmp_path, RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    shown = {job["job_type"]: job for job in json.loads(done.stdout)["job_types"]}
    squares, failing = shown[SQUARES], shown["tests.sample_jobs.raise_error"]
    runs = history_reader.runs(connection, SQUARES)
    assert squares["runs"] == sum(run.times for run in runs) == 4 + squares["resumes"]
    assert squares["breaches"]["total"] == sum(run.layer != "" for run in runs) >= 1
    assert squares["items"] == 24 + 8 + 9 + 10
    assert squares["peak_mb"]["max"] == max(run.peak_mb for run in runs)
    assert squares["ceiling_mb"] == 200
    assert (failing["runs"], failing["failed"]) == (1, 1)
    status = json.loads(rqmem("status", "--json", RQMEM_REDIS_URL=redis_url).stdout)
    by_status = {each["job_type"]: each for each in status["job_types"]}
    for name, job in shown.items():
        for field in ("runs", "failed", "resumes", "alerts", "breaches", "peak_per_1000_items_mb"):
            assert job[field] == by_status[name][field]
