"""``--profile memray``: which captures are kept, that they can be read and drawn, and that no job suffers."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from rqmem.profiling import captures
from rqmem.store import execution_reader
from rqmem.worker.profiling import MOST_BYTES_OF_ONE
from tests import profile_jobs, sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, StartWorker, WorkOff

pytestmark = pytest.mark.races
memray = pytest.importorskip("memray", reason="memray is not installed (extra profile)")
Profiled = Callable[..., str]


@pytest.fixture
def queue(connection: Redis) -> Queue:
    return Queue(connection=connection)


@pytest.fixture
def work_off_profiled(work_off: WorkOff, tmp_path: Path) -> Profiled:
    """Work off all jobs, capturing runs into the test's own directory."""
    options = ("--profile", "memray", "--profile-dir", str(tmp_path / "profiles"), "--memory", "256")
    return lambda *more, **environ: work_off(*options, *more, **environ)


def lines_in(path: Path) -> dict[str, int]:
    """Function -> bytes it held at the peak, by memray's own reader."""
    held: dict[str, int] = {}
    for record in memray.FileReader(path).get_high_watermark_allocation_records():
        for function, _, _ in record.stack_trace():
            held[function] = held.get(function, 0) + record.size
    return held


def test_a_breach_is_kept_private_and_drawn(
    queue: Queue, work_off_profiled: Profiled, redis_url: str, tmp_path: Path
) -> None:
    job = queue.enqueue(profile_jobs.grow_beyond)
    log = work_off_profiled("--memory", "128")
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.layer == "watch"
    assert breach.peak_mb < breach.used_mb + 8, "its main thread hears of it at once, beside memray's own thread too"
    found = captures.find(tmp_path / "profiles", job.id)
    assert found is not None, log
    assert (found.job, found.breached) == ("tests.profile_jobs.grow_beyond", True)
    path = captures.path_of(tmp_path / "profiles", found)
    assert lines_in(path)["grow_beyond"] > 60 * 2**20
    assert {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "profiles").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "profiles").stat().st_mode) == 0o700
    html = tmp_path / "out.html"
    where = {"RQMEM_REDIS_URL": redis_url, "RQMEM_PROFILE_DIR": str(tmp_path / "profiles")}
    done = rqmem("inspect", job.id[:8], "--flamegraph", "--output", str(html), **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{html}: tests.profile_jobs.grow_beyond {job.id}, peak ")
    assert "grow_beyond" in html.read_text()
    assert "<script src=" not in html.read_text(), "it opens without a network"


def test_the_ceiling_holds_where_only_a_kill_helps(queue: Queue, work_off_profiled: Profiled, tmp_path: Path) -> None:
    """It catches every breach: the watcher kills it within the reserve, and its capture can be read."""
    job = queue.enqueue(sample_jobs.grow_and_swallow)
    log = work_off_profiled("--memory", "128")
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.layer in ("kill", "kernel")  # whoever was first
    assert breach.peak_mb < 128 + 32 + 8, "the ceiling holds while it is traced"
    found = captures.find(tmp_path / "profiles", job.id)
    assert found is not None and found.breached, log
    assert lines_in(captures.path_of(tmp_path / "profiles", found))["grow_and_swallow"] > 60 * 2**20


def test_what_a_killed_horse_leaves_can_be_read(queue: Queue, work_off_profiled: Profiled, tmp_path: Path) -> None:
    job = queue.enqueue(profile_jobs.grow_and_be_killed)
    log = work_off_profiled()
    assert "it was killed" in log or "SIGKILL" in log
    found = captures.find(tmp_path / "profiles", job.id)
    assert found is not None
    assert lines_in(captures.path_of(tmp_path / "profiles", found))["grow_and_be_killed"] >= 40 * 2**20


def test_the_worst_peaks_of_a_warm_horse_and_its_threads(
    queue: Queue, work_off_profiled: Profiled, tmp_path: Path
) -> None:
    jobs = {size: queue.enqueue(profile_jobs.fit_until_seen, size) for size in (60, 100, 80, 40, 120)}
    threaded = queue.enqueue(profile_jobs.grow_in_threads, 40)
    log = work_off_profiled()
    kept = {each.job_id for each in captures.kept(tmp_path / "profiles")}
    assert kept == {jobs[80].id, jobs[100].id, jobs[120].id, threaded.id}, log
    found = captures.find(tmp_path / "profiles", threaded.id)
    assert found is not None
    assert lines_in(captures.path_of(tmp_path / "profiles", found))["fill"] >= 38 * 2**20
    assert len(list((tmp_path / "profiles").iterdir())) == 2 * 4, "nothing else is left"


def test_a_horse_for_each_job_is_captured_too(queue: Queue, work_off_profiled: Profiled, tmp_path: Path) -> None:
    breach, kept = queue.enqueue(profile_jobs.grow_beyond), queue.enqueue(profile_jobs.fit_with, 40)
    log = work_off_profiled("--memory", "128", "--isolation", "fork")
    found = {each.job_id: each.breached for each in captures.kept(tmp_path / "profiles")}
    assert found == {breach.id: True, kept.id: False}, log
    [evidence] = execution_reader.breaches(queue.connection, breach.id)
    assert evidence.peak_mb < 128 + 32


def test_only_the_job_type_that_was_named(queue: Queue, work_off_profiled: Profiled, tmp_path: Path) -> None:
    queue.enqueue(sample_jobs.hold, 40)
    wanted = queue.enqueue(profile_jobs.fit_with, 40)
    aware = sample_jobs.Squares.enqueue(count=4, connection=queue.connection)
    both = ("--profile-job", "tests.profile_jobs.fit_with", "--profile-job", "tests.sample_jobs.Squares")
    work_off_profiled(*both)
    assert {each.job_id for each in captures.kept(tmp_path / "profiles")} == {wanted.id, aware.id}


def test_a_capture_that_grows_too_large_is_dropped_and_the_job_goes_on(
    queue: Queue, work_off_profiled: Profiled, tmp_path: Path
) -> None:
    assert MOST_BYTES_OF_ONE == 64 * 2**20
    jobs = [queue.enqueue(profile_jobs.allocate_often, 1_200_000) for _ in range(2)]
    log = work_off_profiled("--preload", "tests.small_captures")
    assert {job.get_status(refresh=True) for job in jobs} == {"finished"}
    dropped = "a profile of tests.profile_jobs.allocate_often was dropped: it grew beyond 4 MB; this is logged once"
    assert log.count(dropped) == 1, log
    assert list((tmp_path / "profiles").iterdir()) == []


def test_what_a_dead_worker_left_is_removed(queue: Queue, work_off_profiled: Profiled, tmp_path: Path) -> None:
    queue.enqueue(profile_jobs.fit_with, 1)
    work_off_profiled()
    [name] = [each.name for each in captures.kept(tmp_path / "profiles")]
    mark = captures.mark_of_this_process()
    ours = captures.running_path(tmp_path / "profiles", mark, "x")
    dead = captures.running_path(tmp_path / "profiles", mark.rpartition("-")[0] + "-1", "x")
    ours.touch()
    dead.touch()
    work_off_profiled()
    assert ours.exists() and not dead.exists()
    assert [each.name for each in captures.kept(tmp_path / "profiles")] == [name]


def test_without_a_profile_it_is_said_what_to_run(
    queue: Queue, work_off: WorkOff, redis_url: str, tmp_path: Path
) -> None:
    job = queue.enqueue(profile_jobs.fit_with, 1)
    work_off()
    where = {"RQMEM_REDIS_URL": redis_url, "RQMEM_PROFILE_DIR": str(tmp_path / "none")}
    done = rqmem("inspect", job.id, "--flamegraph", **where)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rqmem: there is no profile of job {job.id} in {tmp_path / 'none'}: 'rqmem worker")
    assert done.stderr.count("\n") == 1
    assert rqmem("inspect", "no-such-job", "--flamegraph", **where).returncode == 2
    assert rqmem("inspect", job.id, "--output", "x.html", **where).returncode == 2
    assert rqmem("inspect", job.id, "--flamegraph", "--json", **where).returncode == 2


def refused(start_worker: StartWorker, directory: Path, **environ: str) -> str:
    worker = start_worker("--burst", "--profile", "memray", "--profile-dir", str(directory), **environ)
    said = worker.finish()
    assert worker.process.returncode == 2, said
    [line] = [line for line in said.splitlines() if line.startswith("rqmem: ")]
    return line


def test_a_directory_that_cannot_be_used_is_refused_at_the_start(start_worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    assert "is open to other users: 'chmod 700' it" in refused(start_worker, tmp_path / "open")
    (tmp_path / "file").touch()
    assert "is a link or a file" in refused(start_worker, tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert "is a link or a file" in refused(start_worker, tmp_path / "link")
    assert "cannot be used: No such file or directory" in refused(start_worker, tmp_path / "there" / "not")


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 40 MB, where we may mount one."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", str(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_is_refused_at_the_start_and_costs_a_profile_later(
    queue: Queue, start_worker: StartWorker, work_off: WorkOff, small_disk: Path
) -> None:
    job = queue.enqueue(profile_jobs.allocate_often, 2_500_000)
    log = work_off("--profile", "memray", "--profile-dir", str(small_disk / "profiles"), "--memory", "256")
    assert job.get_status(refresh=True) == "finished", log
    assert f"was dropped: {small_disk / 'profiles'} is full; this is logged once" in log
    (small_disk / "taken").write_bytes(bytes(20 * 2**20))
    assert "is full: 20 MB are free, and profiles want 32 at least; make room" in refused(
        start_worker, small_disk / "profiles"
    )


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import sys; sys.modules['memray'] = None", "memray is not installed: pip install 'rqmem[profile]'"),
        ("import sys, types; sys.path.insert(0, {broken!r})", "memray does not work on this Python"),
    ],
)
def test_memray_that_is_not_there_or_does_not_work(
    start_worker: StartWorker, tmp_path: Path, module: str, said: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "memray.py").write_text("raise ImportError('no such symbol')")
    (tmp_path / "sitecustomize.py").write_text(module.format(broken=str(broken)))
    line = refused(start_worker, tmp_path / "profiles", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert said in line, line


def test_the_setting_is_refused_when_misspelt() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rqmem", "worker", "--profile", "tracemalloc"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--profile='tracemalloc': give memray (" in done.stderr
