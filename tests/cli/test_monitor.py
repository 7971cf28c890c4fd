"""``rqmem monitor`` run for real, on a Redis filled as workers fill it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

import rqmem.api
from rqmem.live import loop
from rqmem.live.record import News, Record
from rqmem.live.recording import MonitorOptions
from rqmem.live.saving import output
from rqmem.live.stopping import Stopping
from rqmem.store import keys
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import LiveJob
from rqmem.store.history.samples import RINGS, Sample
from rqmem.testing import wait_until
from tests import forked, sample_jobs
from tests.conftest import ROOT, OwnRedis, StartCommand, StartWorker, WorkerProcess
from tests.journal_filling import a_live, a_run, fill, raise_alert, register, remember

JOB = "jobs.campaigns.ProcessRetellAICampaignJob"
WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from rqmem.cli import main; main()"


StartMonitor = StartCommand


@pytest.fixture
def start_monitor(redis_url: str, start_command: StartCommand, tmp_path: Path) -> StartMonitor:
    """Start one on our server, interval 1 s."""

    def start(*options: str, url: str = redis_url) -> WorkerProcess:
        return start_command("monitor", "--interval", "1", "--url", url, *options, directory=tmp_path, apart=True)

    return start


def monitor(*options: str, directory: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """One that ends by itself."""
    return forked.run(
        [sys.executable, "-m", "rqmem", "monitor", *options],
        env=forked.environ(), cwd=directory, timeout=60, **more,
    )  # fmt: skip


def a_job(usage_mb: float, job_id: str = "j1", **more: Any) -> LiveJob:
    values = {"operation": "customers 50-100", "items_done": 1200}
    return LiveJob(JOB, job_id, "q", time.time(), usage_mb, usage_mb, 256.0, **{**values, **more})


def populate(connection: Redis) -> None:
    """A worker near its ceiling, an idle one, a stock one, and a queue with a job."""
    history_writer.version_is_ours(connection)
    register(connection, "ada", "q", state="busy", live=a_live("ada", a_job(230.4)))
    register(connection, "bob", "mail", live=a_live("bob", queues=["mail"]))
    register(connection, "stock", "q", state="busy")
    Queue("q", connection=connection).enqueue("time.sleep", 1)


# What it shows and writes


def test_lines_in_a_pipe_and_a_summary(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    populate(connection)
    before = everything(connection)
    done = monitor("--interval", "1", "--duration", "2", "--url", redis_url, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        f"worker ada: 230.4 of 256 MB (90 %, ABOVE 80 %) {JOB} (j1) at customers 50-100, 1,200 items; itself 38 of 512",
        f"ABOVE 80 %: {JOB} (j1) on ada uses 230.4 of 256 MB (90 %)",
        "worker bob: idle; itself 38 of 512 MB",
        "worker stock: busy; not watched: a stock rq worker",
        "queue q: 1 queued, 0 started, 0 deferred, 0 failed",
        f"{JOB}: no runs, 1 crossing",
        "1 crossing of 80 % of the ceiling",
        "no alerts raised",
    ):
        assert words in done.stdout
    assert done.stderr == ""
    assert everything(connection) == before, "it only reads"


def everything(connection: Redis) -> dict[bytes, Any]:
    return {key: connection.dump(key) for key in connection.scan_iter()}


def test_the_report_has_what_happened_meanwhile(connection: Redis, start_monitor: StartMonitor, tmp_path: Path) -> None:
    populate(connection)
    remember(connection, a_run(JOB, "before", time.time() - 1))
    raise_alert(connection, JOB, "from before")
    started = start_monitor("--output-file", "report.json")
    started.wait_for("worker ada")
    now = time.time()
    runs = [dataclasses.replace(a_run(JOB, f"r{each}", now), peak_mb=100.0 + each) for each in range(10)]
    breach = dataclasses.replace(runs[9], outcome="MemoryLimitExceeded", layer="watch", resumed=True, peak_mb=260.0)
    remember(connection, *runs[:9], breach)
    raise_alert(connection, JOB, "uses 230 MB of 256 MB")
    register(connection, "ada", "q", live=a_live("ada", a_job(100.0, "j2"), jobs=415))
    started.wait_for("alert raised")
    started.wait_for("(j2)")
    assert started.end(signal.SIGINT) == 0, started.errors

    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["version"], report["complete"], report["ended_by"]) == (2, True, "SIGINT")
    assert (report["alerts_raised"], report["alerts"][0]["text"]) == (1, "uses 230 MB of 256 MB")
    assert report["threshold_crossings"] == 1
    assert report["crossings"][0]["usage_percentage"] == 90.0
    [job] = report["job_types"]
    assert (job["job_type"], job["source"], job["runs"], job["failed"], job["resumes"]) == (JOB, "runs", 10, 0, 1)
    assert job["breaches"] == {"total": 1, "by_layer": {"watch": 1}}
    assert job["peak_mb"] == {"p50": 104.0, "p90": 108.0, "p99": 260.0, "max": 260.0}
    assert (job["items"], job["chunks"], job["collections"], job["alerts"]) == (12000, 240, 40, 1)
    assert job["runs_above_threshold"] == 1
    assert report["totals"]["alerts_per_job"] == job["alerts_per_job"] == 0.1
    assert report["totals"]["freed_per_collection_mb"] == 7.75
    [ada, bob, stock] = report["workers"]
    assert (ada["name"], ada["jobs_ended"], ada["crossings"], ada["kind"]) == ("ada", 3, 1, "rqmem")
    assert (ada["fullest"]["usage_mb"], ada["fullest"]["job_id"]) == (230.4, "j1")
    assert (bob["fullest"]["job_type"], stock["kind"], stock["fullest"]) == (None, "rq", None)
    assert len(report["samples"]) >= 2
    assert {each["name"] for each in report["samples"][0]["workers"]} == {"ada", "bob"}
    queues = {each["name"]: each for each in report["samples"][0]["queues"]}
    assert (queues["q"]["queued"], queues["q"]["started"]) == (1, 0)
    assert report["samples"][0]["system"]["total_mb"] > 0
    assert "report: report.json (" in started.printed
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_more_runs_than_the_journal_keeps_one_by_one(
    connection: Redis, start_monitor: StartMonitor, tmp_path: Path
) -> None:
    populate(connection)
    started = start_monitor("--output-file", "report.json")
    started.wait_for("worker ada")
    for _ in range(3):
        remember(connection, *(a_run(JOB, f"r{each}", time.time()) for each in range(100)))
    assert started.end() == 0
    [job] = json.loads((tmp_path / "report.json").read_text())["job_types"]
    assert (job["source"], job["runs"], job["items"], job["runs_above_threshold"]) == ("tallies", 300, 360_000, None)
    assert job["peak_mb"]["max"] == pytest.approx(158.7, rel=0.06)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_a_text_report_when_it_is_told_to_end(
    connection: Redis, start_monitor: StartMonitor, by: signal.Signals, tmp_path: Path
) -> None:
    populate(connection)
    started = start_monitor("--output-file", "report.txt", "--duration", "unlimited")
    started.wait_for("worker ada")
    assert started.end(by) == 0
    written = (tmp_path / "report.txt").read_text()
    assert f"(ended by {by.name})" in written
    assert "ada  230.4 of 256 MB (90 %)" in written
    assert "1 crossing of 80 % of the ceiling" in written


def test_only_some_queues(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    populate(connection)
    done = monitor("--interval", "1", "--duration", "1", "--queue", "mail", "--url", redis_url, directory=tmp_path)
    assert "worker bob" in done.stdout
    assert "worker ada" not in done.stdout
    assert "queue q" not in done.stdout
    assert "only of queues mail" in done.stdout


def test_a_worker_that_is_not_heard_of(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    populate(connection)
    connection.zadd(keys.SAMPLED, {"ada": time.time()})
    connection.delete(keys.alive("ada"))
    done = monitor("--duration", "1", "--url", redis_url, directory=tmp_path)
    assert "worker ada: busy; not heard of: it hangs, or is dead" in done.stdout


# Exit codes


def test_alerts_fail_it_where_that_is_asked_for(connection: Redis, start_monitor: StartMonitor) -> None:
    populate(connection)
    watching, failing = start_monitor(), start_monitor("--fail-on-alert")
    for each in (watching, failing):
        each.wait_for("worker ada")
    raise_alert(connection, JOB, "uses 230 MB of 256 MB")
    for each in (watching, failing):
        each.wait_for("alert raised: usage: uses 230 MB of 256 MB")
    assert (watching.end(), failing.end()) == (0, 3)


def test_crossings_and_alerts_from_before_fail_nothing(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    populate(connection)
    raise_alert(connection, JOB, "from before")
    done = monitor("--duration", "1", "--fail-on-alert", "--url", redis_url, directory=tmp_path)
    assert "1 crossing of" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--interval", "0"], "--interval='0': give whole seconds, at least 1, as in 90s, 10m"),
        (["--interval", "-1"], "--interval='-1': give whole seconds, at least 1"),
        (["--duration", "0"], "--duration='0': give whole seconds, at least 1, as in 90s, 10m, 2h or 3d, or unlimited"),
        (["--duration", "-5"], "--duration='-5': give whole seconds, at least 1"),
        (["--threshold", "0.8"], "--threshold 0.8: give a percentage, for 0.8 write 80"),
        (["--threshold", "800"], "--threshold 800: give a percentage of the ceiling above 1 and up to 100"),
        (["--output-file", "nowhere/report.json"], "--output-file nowhere/report.json: there is no directory /"),
        (["--output-file", "report.csv"], "--output-file report.csv: its name must end in .json or .txt"),
        (["--output-file", "/proc/report.json"], "no file can be made in /proc"),
        (["--queue", "mial"], "--queue 'mial' is not known: did you mean mail?"),
        (["--queue", "xyzzy"], "--queue 'xyzzy' is not known: known are mail, q"),
        (["--url", "http://localhost"], "--url 'http://localhost' cannot be used"),
        (["--frobnicate"], "No such option '--frobnicate'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_before_the_run(
    connection: Redis, redis_url: str, tmp_path: Path, options: list[str], words: str
) -> None:
    populate(connection)
    done = monitor("--url", redis_url, *options, directory=tmp_path)
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ")
    assert words in line
    assert (done.stdout, done.returncode) == ("", 2)


# What goes wrong meanwhile


def test_redis_that_stops_and_goes_on(connection: Redis, start_monitor: StartMonitor, tmp_path: Path) -> None:
    populate(connection)
    started = start_monitor("--output-file", "report.json")
    started.wait_for("worker ada")
    info: Any = connection.info("server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        started.wait_for("Redis does not answer: waiting for it")
    finally:
        os.kill(info["process_id"], signal.SIGCONT)
    started.wait_for("Redis answers again")
    assert started.end() == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["redis_away_seconds"] > 0
    assert report["jobs_read_at"] >= report["samples"][-1]["at"]


def test_redis_that_is_gone_and_comes_again(start_monitor: StartMonitor, own_redis: OwnRedis, tmp_path: Path) -> None:
    populate(own_redis.connection)
    started = start_monitor("--output-file", "report.json", url=own_redis.server.url)
    started.wait_for("worker ada")
    own_redis.kill()
    started.wait_for("Redis does not answer: waiting for it")
    own_redis.start_again()
    started.wait_for("Redis answers again")
    assert started.end() == 0
    assert json.loads((tmp_path / "report.json").read_text())["redis_away_seconds"] > 0


def test_redis_that_is_gone_at_the_end(start_monitor: StartMonitor, own_redis: OwnRedis) -> None:
    populate(own_redis.connection)
    started = start_monitor(url=own_redis.server.url)
    started.wait_for("worker ada")
    own_redis.kill()
    started.wait_for("Redis does not answer")
    assert started.end() == 0
    assert "Redis was away for " in started.printed
    assert "what jobs did is known until " in started.printed


def test_a_full_disk_loses_no_report(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    populate(connection)
    done = monitor(
        "--interval", "1", "--duration", "1", "--output-file", "report.json", "--url", redis_url, directory=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )  # fmt: skip
    [line] = done.stderr.splitlines()
    assert line == "rqmem: report.json could not be written (File too large); the report is printed instead"
    assert done.returncode == 1
    printed = done.stdout[done.stdout.index("{\n") :]
    assert json.loads(printed)["complete"] is True
    assert list(tmp_path.iterdir()) == []


def test_nobody_reads_its_output_any_more(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    populate(connection)
    options = ["--interval", "1", "--output-file", "report.json", "--url", redis_url]
    process = forked.Popen(
        [sys.executable, "-m", "rqmem", "monitor", *options],
        env=forked.environ(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
        process.stderr.close()
    finally:
        process.kill()
        process.wait()
    assert json.loads((tmp_path / "report.json").read_text())["ended_by"] == "output closed"


def test_two_at_once_with_one_file(
    connection: Redis, redis_url: str, start_monitor: StartMonitor, tmp_path: Path
) -> None:
    populate(connection)
    both = [start_monitor("--output-file", str(tmp_path / "report.json")) for _ in range(2)]
    for each in both:
        each.wait_for("worker ada", 2)
    for each in both:
        each.process.send_signal(signal.SIGINT)
    assert [each.process.wait(60) for each in both] == [0, 0]
    assert json.loads((tmp_path / "report.json").read_text())["complete"] is True
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.json"]


class _Watching:
    """A display that looks at the file of the report while the monitor runs."""

    def __init__(self, file: Path) -> None:
        self.file, self.seen = file, set[bool]()

    def show(self, record: Record, news: News, now: float, notice: str) -> None:
        if self.file.exists():
            self.seen.add(json.loads(self.file.read_text())["complete"])


def test_it_is_saved_meanwhile_for_one_that_is_killed(
    connection: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(connection)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.05)
    file = output(str(tmp_path / "report.json"))
    display = _Watching(file.file)
    watch = loop.Watch(connection, MonitorOptions("here", 1, 80.0, (), 0.8), 2.0, file)
    with Stopping() as stopping:
        report = watch.until_over(nullcontext(display.show), stopping)
    assert display.seen == {False}
    assert report.complete


# The live view


class Terminal:
    """A terminal of our own, on which a command runs."""

    def __init__(self, *arguments: str, columns: int = 100, rows: int = 30, **environ: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.settings = termios.tcgetattr(slave)
        self.slave = slave
        os.set_blocking(self.master, False)
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT,
            env=forked.environ(**{"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environ}),
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )  # fmt: skip

    def read(self) -> str:
        try:
            self.output += os.read(self.master, 1 << 20).decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return self.output

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.read())

    def ended(self) -> bool:
        self.read()
        return self.process.poll() is not None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(redis_url: str, connection: Redis) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, **more: Any) -> Terminal:
        opened.append(Terminal(*arguments, "monitor", "--interval", "1", "--url", redis_url, **more))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_the_live_view_and_the_terminal_as_before(connection: Redis, terminal: Callable[..., Terminal]) -> None:
    pytest.importorskip("rich")
    populate(connection)
    screen = terminal("-m", "rqmem")
    screen.wait_for("\x1b[?1049h")
    screen.wait_for("ada")
    screen.wait_for("230/256 MB")
    screen.wait_for("not watched: a stock rq worker")
    register(connection, "ada", "q", live=a_live("ada", a_job(64.0, "j2")))
    screen.wait_for("64/256 MB")
    os.write(screen.master, b"\x03")  # Ctrl-C
    wait_until(screen.ended)
    assert screen.process.returncode == 0
    view, _, after = screen.read().rpartition("\x1b[?1049l")
    assert "1 over 80 %" in view
    assert view.count("\x1b[?25l") == 1
    assert "\x1b[?25h" in screen.output, "the cursor is shown again"
    assert "1 crossing of 80 % of the ceiling" in after
    assert "(ended by SIGINT)" in after
    assert termios.tcgetattr(screen.slave) == screen.settings


@pytest.mark.parametrize("plain", [(), ("--plain",)], ids=["live", "plain"])
def test_a_terminal_that_is_closed_loses_no_report(
    connection: Redis, redis_url: str, tmp_path: Path, plain: tuple[str, ...]
) -> None:
    populate(connection)
    file = tmp_path / "report.json"
    screen = Terminal("-m", "rqmem", "monitor", "--output-file", str(file), "--url", redis_url, *plain)
    screen.wait_for("ada")
    os.close(screen.slave)
    os.close(screen.master)
    try:
        assert screen.process.wait(60) == 0
    finally:
        screen.process.kill()
        screen.process.wait()
    assert json.loads(file.read_text())["ended_by"] in ("SIGHUP", "output closed")


def test_a_terminal_without_rich_gets_lines_and_is_told(connection: Redis, terminal: Callable[..., Terminal]) -> None:
    populate(connection)
    screen = terminal("-c", WITHOUT_RICH)
    screen.wait_for("worker ada: 230.4 of 256 MB")
    screen.process.send_signal(signal.SIGTERM)
    wait_until(screen.ended)
    assert screen.output.startswith("rqmem: for a live view: pip install 'rqmem[tui]'")
    assert "\x1b" not in screen.output
    assert screen.process.returncode == 0


def test_a_dumb_terminal_gets_lines(connection: Redis, terminal: Callable[..., Terminal]) -> None:
    populate(connection)
    screen = terminal("-m", "rqmem", TERM="dumb")
    screen.wait_for("worker ada: 230.4 of 256 MB")
    assert "\x1b" not in screen.output


# What is read


@pytest.mark.parametrize("age", [0, 1, 5, 399, 400, 401, 500])
def test_newest_samples_are_those_of_the_whole_ring(connection: Redis, age: int) -> None:
    ring = RINGS[0]
    now = 1_700_000_000 // ring.seconds * ring.seconds + age  # the ring's end lies between, for some
    with connection.pipeline() as pipeline:
        for at in range(now - ring.seconds - 40, now + 1, 1 + age % 3):
            sample = Sample(at, float(at % 50), 256.0, 30.0)
            pipeline.setrange(keys.samples("w", 1), ring.offset(at), ring.pack(sample).decode("latin-1"))
        pipeline.execute()
    every = history_reader.samples(connection, "w", now, ring)
    for back in (0, 1, 7, 400, ring.seconds - 2, ring.seconds - 1, ring.seconds, 9999):
        newest = history_reader.newest_samples(connection, {"w": now - back, "none": now}, now)
        assert newest == {"w": [sample for sample in every if sample.at >= now - back], "none": []}
    assert len(RINGS) == 3


def test_hours_are_those_of_the_tallies(connection: Redis) -> None:
    fill(connection, JOB, "j1")
    now = time.time()
    found = history_reader.hourly(connection, [JOB, "none"], now - 7200, now)
    assert set(found) == {(JOB, int(now // 3600))}
    assert sum(each.runs for each in found.values()) == 1
    assert found[JOB, int(now // 3600)] == history_reader.tally(connection, JOB, now, now)


# With a real worker


def test_a_real_worker_and_its_breach(
    connection: Redis, start_worker: StartWorker, start_monitor: StartMonitor, tmp_path: Path
) -> None:
    worker = start_worker("--memory", "96", "--name", "real", "q")
    wait_until(lambda: connection.exists(keys.alive("real")))
    started = start_monitor("--output-file", "report.json")
    started.wait_for("worker real: idle")
    job = Queue("q", connection=connection).enqueue(sample_jobs.grow_lists)
    wait_until(lambda: job.get_status(refresh=True) == "failed")
    name = "tests.sample_jobs.grow_lists"
    wait_until(lambda: history_reader.runs(connection, name))
    wait_until(lambda: rqmem.api.workers(connection=connection)[0].jobs == 1)
    assert started.end() == 0
    report = json.loads((tmp_path / "report.json").read_text())
    [found] = report["job_types"]
    [run] = history_reader.runs(connection, name)
    assert (found["job_type"], found["runs"], found["failed"]) == (name, 1, 1)
    assert found["breaches"]["by_layer"] == {run.layer: 1}
    assert found["peak_mb"]["max"] == round(run.peak_mb, 1) > 96
    assert found["runs_above_threshold"] == 1
    [real] = report["workers"]
    assert (real["name"], real["jobs_ended"]) == ("real", 1)
    worker.kill()
