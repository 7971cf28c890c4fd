"""One contract for every meter of a job's own process: the exact one and psutil's; and which of them is chosen."""

from __future__ import annotations

import logging
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rqmem.measure import own_process
from rqmem.measure.meter import TreeMeter
from rqmem.measure.own_process import ExactMeter, Meter
from rqmem.measure.portable import PortableMeter
from rqmem.measure.trim import collect_and_trim
from tests import forked
from tests.conftest import ROOT
from tests.sample_jobs import clone_sharing_memory

MB = 2**20
RATE = 8e9
TOLERANCE = 4 * MB

METERS: dict[str, Callable[[], Meter]] = {"exact": lambda: ExactMeter(RATE), "psutil": PortableMeter}


@pytest.fixture(params=METERS)
def meter(request: pytest.FixtureRequest) -> Iterator[Meter]:
    if request.param == "exact" and own_process.proc_shortcoming():
        pytest.skip(own_process.proc_shortcoming())
    collect_and_trim()
    made = METERS[request.param]()
    yield made
    made.close()


def full(meter: Meter) -> int:
    return meter.full(time.monotonic).usage_bytes


def quick(meter: Meter) -> int:
    return meter.estimate(meter.raw())


def test_growth_is_seen_by_both_readings_and_freed_memory_goes(meter: Meter) -> None:
    before = full(meter)
    assert before > MB
    block = mmap.mmap(-1, 50 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # the allocator may keep what it frees
    for _ in range(50):
        block.write(os.urandom(MB))
    assert abs(quick(meter) - before - 50 * MB) < TOLERANCE
    assert abs(full(meter) - before - 50 * MB) < TOLERANCE
    block.close()
    assert abs(quick(meter) - before) < TOLERANCE
    assert abs(full(meter) - before) < TOLERANCE


def test_memory_of_a_child_counts_until_it_has_ended(meter: Meter) -> None:
    at_first = meter.full(time.monotonic)  # other tests' servers may be ours too
    before = at_first.usage_bytes
    code = "x = b'x' * 50 * 2**20; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        reading = meter.full(time.monotonic)
        assert reading.usage_bytes - before > 50 * MB
        assert set(reading.by_pid) == {*at_first.by_pid, child.pid}
        assert reading.by_pid[child.pid] > 50 * MB
        assert quick(meter) - before > 50 * MB
        child.kill()
    assert abs(full(meter) - before) < TOLERANCE


def test_a_full_reading_is_wanted_at_first_and_after_a_while_only(meter: Meter) -> None:
    assert meter.wants_full(meter.raw(), time.monotonic())
    full(meter)
    raw, now = meter.raw(), time.monotonic()
    assert not meter.wants_full(raw, now)
    assert meter.wants_full(raw, now + 10)


def test_a_reading_above_the_ceiling_is_doubted_when_the_last_full_one_is_old(meter: Meter) -> None:
    full(meter)
    raw, later = meter.raw(), time.monotonic() + 10
    assert meter.doubtful(raw, raw - 1, later)
    assert not meter.doubtful(raw, raw, later)


def test_what_a_fork_shares_is_not_counted_twice(meter: Meter) -> None:
    block = b"x" * 50 * MB
    before = full(meter)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        assert full(meter) < before + 20 * MB
        assert quick(meter) < before + 20 * MB
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(block) == 50 * MB


def test_a_child_that_has_no_memory_but_its_parents_counts_nothing(meter: Meter) -> None:
    """As each program that is started has none between vfork(2) and exec."""
    if isinstance(meter, PortableMeter):
        pytest.skip("psutil cannot tell")
    block = bytearray(os.urandom(MB)) * 50
    before = full(meter)
    child = clone_sharing_memory(30)
    try:
        assert psutil.Process(child).memory_info().rss > 50 * MB
        assert abs(quick(meter) - before) < TOLERANCE
        reading = meter.full(time.monotonic)
        assert abs(reading.usage_bytes - before) < TOLERANCE
        assert reading.by_pid[child] == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert abs(full(meter) - before) < TOLERANCE
    del block


def test_reading_a_mapped_file_is_no_usage_for_the_exact_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(60 * MB))
    meter = METERS["exact"]()
    before = full(meter)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped.find(b"x") == -1
        assert abs(full(meter) - before) < TOLERANCE
        assert abs(quick(meter) - before) < TOLERANCE
    meter.close()


def test_psutils_takes_what_is_resident_where_more_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)  # macOS, of any process but our own

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    meter = PortableMeter()
    own = psutil.Process()
    resident = sum(each.memory_info().rss for each in (own, *own.children(recursive=True)))
    assert abs(full(meter) - resident) < TOLERANCE


def test_psutils_reads_nothing_rather_than_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise psutil.NoSuchProcess(os.getpid())  # Linux without /proc

    monkeypatch.setattr(psutil, "Process", refuse)
    meter = PortableMeter()
    assert meter.full(time.monotonic) == own_process.FullReading(0, {})
    assert quick(meter) == 0


# Which one is chosen


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    own_process._tell.cache_clear()
    with caplog.at_level(logging.WARNING, "rqmem.measure"):
        yield caplog
    own_process._tell.cache_clear()


def test_where_proc_can_be_read_the_exact_one_without_a_word(told: pytest.LogCaptureFixture) -> None:
    if own_process.proc_shortcoming():
        pytest.skip(own_process.proc_shortcoming())
    meter = own_process.meter_of_this_process(RATE)
    meter.close()
    assert isinstance(meter, ExactMeter)
    assert not told.records


def test_elsewhere_psutils_with_one_line(told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_process, "proc_shortcoming", lambda: "macOS has no /proc as Linux has it")
    assert isinstance(own_process.meter_of_this_process(RATE), PortableMeter)
    assert isinstance(own_process.meter_of_this_process(RATE), PortableMeter)
    [line] = told.messages
    assert line == "memory is read by psutil here, which is less exact: macOS has no /proc as Linux has it"


def test_where_nothing_can_be_read_the_line_says_that(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_process, "proc_shortcoming", lambda: "/proc is not mounted")
    monkeypatch.setattr(PortableMeter, "raw", lambda self: 0)
    own_process.meter_of_this_process(RATE)
    assert "checkpoints keep no ceiling: /proc is not mounted" in told.text


@pytest.mark.parametrize(
    ("platform", "error", "has_proc", "words"),
    [
        ("darwin", FileNotFoundError(), False, "macOS has no /proc as Linux has it"),
        ("freebsd14", FileNotFoundError(), False, "freebsd14 has no /proc as Linux has it"),
        ("linux", FileNotFoundError(), False, "/proc is not mounted"),
        ("linux", PermissionError(), True, "may not be read (the Python program has capabilities"),
        ("linux", FileNotFoundError(), True, "there is no /proc/self/smaps_rollup (Linux before 4.14, or a sandbox"),
    ],
    ids=["macOS", "BSD", "no /proc", "forbidden", "old"],
)
def test_words_for_a_proc_that_falls_short(platform: str, error: OSError, has_proc: bool, words: str) -> None:
    assert words in own_process.why_unreadable(platform, error, has_proc)


def test_a_job_called_directly_is_metered_and_stopped_without_proc() -> None:
    """As on macOS, as far as that can be had here: only psutil reads."""
    code = (
        "import logging; logging.basicConfig()\n"
        "from rqmem.measure import own_process\n"
        "own_process.proc_shortcoming = lambda: 'macOS has no /proc as Linux has it'\n"
        "from rqmem import MemoryAwareJob\n"
        "class Job(MemoryAwareJob):\n"
        "    memory_limit_mb = 150\n"
        "    def handle(self):\n"
        "        self.check_memory_usage('small')\n"
        "        rows = b'x' * 200 * 2**20\n"
        "        self.check_memory_usage('large')\n"
        "Job.run()\n"
    )
    done = forked.run_code(code)
    assert done.stderr.count("less exact: macOS has no /proc as Linux has it") == 1
    assert "MB of 150 MB at 'large'" in done.stderr
    assert done.returncode == 1


def test_psutil_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None;"  # redis-py imports it, and it psutil
        "import rqmem; rqmem.MemoryAwareJob; import rqmem.measure.own_process; print('psutil' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("dies", ["the first", "the last", "both"])
@pytest.mark.parametrize("seen_dead_until", range(8))
def test_a_process_may_end_between_any_two_looks(dies: str, seen_dead_until: int) -> None:
    """The list of processes is older than what is read of them: so many times it still names those that have ended."""
    code = "print(flush=True); input()"
    children = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    gone: list[int] = []
    looks = 0

    def members() -> list[int]:
        nonlocal looks
        looks += bool(gone)
        return [child.pid for child in children if child.pid not in gone or looks <= seen_dead_until]

    meter = TreeMeter(members, RATE)
    meter.begin(0, children[0].pid)
    meter.full(time.monotonic)
    try:
        for number, child in enumerate(children):
            if dies in ("both", ("the first", "the last")[number]):
                child.kill()
                child.wait()
                gone.append(child.pid)
        for read in (meter.full, meter.full):
            reading = read(time.monotonic)
            assert not set(reading.by_pid) & set(gone)
            meter.raw()
            meter.begin(MB, children[0].pid)
            meter.lone()
            meter.take_mark(children[0].pid, look=True)
            meter.resident_shmem_bytes()
    finally:
        meter.close()
        for child in children:
            child.kill()
            child.communicate()
