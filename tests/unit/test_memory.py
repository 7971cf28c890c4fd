"""Reading memory: parsing on captured text, metering on real processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqmem.measure import linux, process_tree, procfs
from rqmem.measure.meter import TreeMeter
from rqmem.measure.trim import collect_and_trim
from rqmem.testing import wait_until

MB = 2**20

ROLLUP = """\
55d0c0a00000-7ffd3a5f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               34016 kB
Pss:               20100 kB
Pss_Dirty:         17000 kB
Pss_Anon:          16000 kB
Pss_File:           4000 kB
Pss_Shmem:           100 kB
Shared_Clean:      10000 kB
Swap:                 64 kB
SwapPss:              32 kB
Locked:                0 kB
"""


def test_usage_is_what_cannot_be_dropped() -> None:
    assert procfs.parse_rollup(ROLLUP).usage_bytes == (16000 + 100 + 32) * 1024


@pytest.mark.parametrize("command", ["python", "a) b", "((", "x ) 1 2 3"])
def test_stat_is_read_after_any_command_name(command: str) -> None:
    fields = ["S", *[str(number) for number in range(4, 53)]]
    assert procfs.parse_stat(f"4242 ({command}) {' '.join(fields)}") == ("S", 4, False, 29, 20, 22)


def test_a_main_thread_that_waits() -> None:
    status = "Name:\tpython\nUmask:\nState:\tS (sleeping)\nSigCgt:\t0000000000000005\nvoluntary_ctxt_switches:\t7\n"
    thread = procfs.parse_main_thread(status)
    assert (thread.waits, thread.waits_so_far) == (True, 7)
    assert [thread.catches(number) for number in (1, 2, 3)] == [True, False, True]
    assert not procfs.parse_main_thread(status.replace("S (sl", "R (ru")).waits
    assert procfs.read_main_thread(2**22 + 1) is None


def test_swap_counts_and_mapped_files_do_not() -> None:
    status = "Name:\tpython\nRssAnon:\t  900 kB\nRssFile:\t  400 kB\nVmSwap:\t   80 kB\n"
    assert procfs.correction_of_resident(procfs.parse_kb(status)) == (80 - 400) * 1024 // procfs.PAGE_BYTES
    assert procfs.correction_of_resident(procfs.parse_kb("Name:\tkthreadd\n")) == 0


def test_mapped_files_count_as_far_as_they_are_locked_into_memory() -> None:
    locked = ROLLUP.replace("Locked:                0", "Locked:            19000")
    assert procfs.parse_rollup(locked).usage_bytes == (16000 + 100 + 32 + 2900) * 1024  # at least
    everything = ROLLUP.replace("Locked:                0", "Locked:            20100")
    assert procfs.parse_rollup(everything).usage_bytes == (16000 + 100 + 32 + 4000) * 1024
    status = "RssAnon:\t 900 kB\nRssFile:\t 400 kB\nRssShmem:\t 0 kB\nVmSwap:\t 80 kB\nVmLck:\t 1200 kB\n"
    usage = procfs.parse_whole_usage(status)
    assert usage is not None and usage.usage_bytes == (900 + 80 + 300) * 1024
    assert procfs.correction_of_resident(procfs.parse_kb(status)) == 80 * 1024 // procfs.PAGE_BYTES


def test_huge_pages_count() -> None:
    rollup = f"{ROLLUP}Shared_Hugetlb:     2048 kB\nPrivate_Hugetlb:    4096 kB\n"
    assert procfs.parse_rollup(rollup).usage_bytes == (16000 + 100 + 32 + 6144) * 1024
    status = "RssAnon:\t 900 kB\nRssFile:\t 0 kB\nRssShmem:\t 0 kB\nVmSwap:\t 0 kB\nHugetlbPages:\t 6144 kB\n"
    usage = procfs.parse_whole_usage(status)
    assert usage is not None and usage.usage_bytes == (900 + 6144) * 1024
    assert procfs.correction_of_resident(procfs.parse_kb(status)) == 6144 * 1024 // procfs.PAGE_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="locking takes CAP_IPC_LOCK")
def test_the_quick_reading_is_not_below_the_full_one_of_locked_files(start_python, tmp_path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(60 * MB))
    child = start_python(
        f"import ctypes, mmap; f = open({str(path)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0);"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(m));"
        "assert ctypes.CDLL(None).mlock(ctypes.c_void_p(at), ctypes.c_size_t(len(m))) == 0"
    )
    meter = meter_of(child.pid)
    full = meter.full(time.monotonic).usage_bytes
    assert full >= 50 * MB
    assert meter.raw() >= full - MB
    meter.close()


def test_a_process_that_is_gone_reads_as_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert procfs.read_usage(child.pid) is None
    assert procfs.read_start_time(child.pid) is None
    assert procfs.read_children(child.pid) == []
    assert process_tree.is_zombie(child.pid)


PYTHON = """
import sys, time
{body}
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def start_python() -> Iterator[object]:
    """Start Python with a body of code; it waits when the body is through."""
    children: list[subprocess.Popen[str]] = []

    def start(body: str) -> subprocess.Popen[str]:
        code = PYTHON.format(body=body)
        child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in children:
        for pid in process_tree.descendants(child.pid):
            os.kill(pid, signal.SIGKILL)
        child.kill()
        child.communicate()


def meter_of(pid: int) -> TreeMeter:
    return TreeMeter(lambda: [pid, *process_tree.descendants(pid)], 8e9)


def test_the_quick_reading_is_never_below_the_full_one(start_python) -> None:
    child = start_python("x = bytearray(50 * 2**20); import mmap; m = mmap.mmap(-1, 10 * 2**20); m[:] = bytes(len(m))")
    meter = meter_of(child.pid)
    full = meter.full(time.monotonic).usage_bytes
    assert 60 * MB <= full <= 85 * MB
    assert meter.raw() >= full - MB
    assert abs(meter.estimate(meter.raw()) - full) <= MB
    meter.close()


def test_reading_through_a_mapped_file_is_no_usage(start_python, tmp_path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(100 * MB))
    child = start_python(
        f"import mmap; f = open({str(path)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); m.find(b'x')"
    )
    meter = meter_of(child.pid)
    assert meter.full(time.monotonic).usage_bytes < 40 * MB
    assert meter.estimate(meter.raw()) < 40 * MB
    meter.close()


def test_the_kernels_mark_tells_of_bursts_and_not_of_mapped_files(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(100 * MB))
    code = (
        "import mmap\n"
        "def step(): print(flush=True); input()\n"
        "step()\n"
        "bytearray(70 * 2**20); step()\n"
        f"f = open({str(path)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); m.find(b'x'); step()\n"
        "m.close(); step()\n"
        "bytearray(150 * 2**20); step()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdin is not None and child.stdout is not None

        def marked_after_next_step() -> int:
            assert child.stdout.readline() == "\n"
            mark = meter.take_mark(child.pid, look=True)
            child.stdin.write("\n")
            child.stdin.flush()
            return mark or 0

        meter = TreeMeter(lambda: [child.pid], 8e9)
        child.stdout.readline()
        full = meter.full(time.monotonic).usage_bytes
        meter.begin(full, child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
        assert abs(marked_after_next_step() - full - 70 * MB) < 4 * MB
        assert marked_after_next_step() < full + 4 * MB, "so much is mapped, and no usage"
        assert marked_after_next_step() == 0, "it has not risen"
        assert abs(marked_after_next_step() - full - 150 * MB) < 4 * MB
        child.wait()
        assert meter.take_mark(child.pid, look=True) is None
        meter.close()


def test_memory_that_is_being_given_back_is_not_taken_for_shared(start_python, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a large munmap(2) smaps_rollup no longer has what statm still counts."""
    child = start_python("held = bytearray(b'x') * (80 * 2**20)")
    meter = meter_of(child.pid)
    held = meter.full(time.monotonic).usage_bytes
    meter.begin(held, child.pid)
    monkeypatch.setattr(procfs, "read_usage", lambda pid: procfs.Usage(held - 80 * MB, 0))
    meter.full(time.monotonic)
    assert meter.estimate(meter.raw()) >= held - MB
    meter.full(time.monotonic, stopped=True)  # nothing is being given back there: it is shared
    assert meter.estimate(meter.raw()) < held - 70 * MB
    meter.close()


def test_pages_shared_by_a_forked_pool_are_counted_once(start_python) -> None:
    child = start_python(
        "import os; x = bytearray(100 * 2**20)\nfor _ in range(3):\n  if os.fork() == 0: time.sleep(600)"
    )
    meter = meter_of(child.pid)
    wait_until(lambda: len(process_tree.descendants(child.pid)) == 3)
    raw = meter.raw()
    full = meter.full(time.monotonic)
    assert raw > 380 * MB
    assert full.usage_bytes < 160 * MB
    assert len(full.by_pid) == 4
    assert meter.estimate(meter.raw()) < 160 * MB
    assert not meter.doubtful(meter.raw(), 200 * MB, time.monotonic())
    assert meter.doubtful(meter.raw(), 200 * MB, time.monotonic() + 10), "shared pages may have turned private"
    meter.close()


def test_what_is_found_only_while_it_is_read_counts_once_too(start_python) -> None:
    """A fork bomb was told to have used 90 MB above its ceiling, 25 for each process that came late."""
    child = start_python("import os; x = bytearray(50 * 2**20)\nif os.fork() == 0: time.sleep(600)")
    wait_until(lambda: len(process_tree.descendants(child.pid)) == 1)
    late = [[child.pid], [child.pid, *process_tree.descendants(child.pid)]]
    meter = TreeMeter(lambda: late.pop(0) if len(late) > 1 else late[0], 8e9)
    full = meter.full(time.monotonic)
    if len(full.by_pid) == 1:  # it is looked for once only
        full = meter.full(time.monotonic)
    assert len(full.by_pid) == 2
    assert meter.estimate(meter.raw()) < full.usage_bytes + 2 * MB
    meter.close()


def test_a_process_whose_main_thread_has_ended_is_measured_and_killed(start_python) -> None:
    child = start_python(
        "import ctypes, threading\n"
        "kept = bytearray(50 * 2**20)\n"
        "threading.Thread(target=time.sleep, args=[600]).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    wait_until(lambda: state(child.pid) == "Z")
    meter = TreeMeter(lambda: [child.pid], 8e9)
    assert meter.raw() > 50 * MB
    assert meter.full(time.monotonic).usage_bytes > 50 * MB
    assert not process_tree.is_zombie(child.pid)
    meter.close()
    parent = os.getpid()
    assert child.pid in process_tree.kill(parent, set(process_tree.descendants(parent)) - {child.pid})
    assert child.wait() == -signal.SIGKILL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may fork another user's process")
def test_what_may_not_be_examined_counts_whole(start_python) -> None:
    child = start_python("import os; os.setresuid(65534, 65534, 65534); x = bytearray(50 * 2**20)")
    code = (
        "import os, time; from rqmem.measure import procfs; from rqmem.measure.meter import TreeMeter\n"
        f"meter = TreeMeter(lambda: [{child.pid}], 8e9)\n"
        "print(meter.raw() >> 20, (full := meter.full(time.monotonic)).usage_bytes >> 20, len(full.whole))"
    )
    caps = "-sys_ptrace,-perfmon,-sys_admin"
    command = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    raw_mb, full_mb, whole = map(int, done.stdout.split())
    assert whole == 1
    assert 50 <= full_mb <= raw_mb <= 80


def test_all_processes_count_where_few_descriptors_are_left(start_python) -> None:
    child = start_python("import os\nfor _ in range(60):\n  if os.fork() == 0: time.sleep(600)")
    wait_until(lambda: len(process_tree.descendants(child.pid)) == 60)
    code = (
        "import os, resource, time\n"
        "from rqmem.measure import kept_files, process_tree\n"
        "from rqmem.measure.meter import TreeMeter\n"
        "kept_files.keep_a_spare_descriptor()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        f"meter = TreeMeter(lambda: [{child.pid}, *process_tree.descendants({child.pid})], 8e9)\n"
        "print(len(meter.full(time.monotonic).by_pid))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', 0))\n"
        "except OSError: pass\n"
        "print(len(meter.full(time.monotonic).by_pid), meter.raw() > 0)\n"
        "print(len(meter.full(time.monotonic).by_pid), meter.raw() > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "61\n61 True\n61 True\n", done.stderr


def test_a_child_before_exec_has_no_memory_of_its_own_where_kcmp_may_not_be_asked(
    start_python, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container of Docker's. The child waits between vfork(2) and exec until somebody writes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = start_python(
        "import os; kept = bytearray(50 * 2**20); print('ready', flush=True)\n"  # the interpreter waits with it
        "os.posix_spawn('/bin/true', ['true'], {}, file_actions="
        f"[(os.POSIX_SPAWN_OPEN, 0, {str(fifo)!r}, os.O_RDONLY, 0)])"
    )
    wait_until(lambda: len(process_tree.descendants(child.pid)) == 1)
    monkeypatch.setattr(linux, "system_call", lambda *asked: -1)
    meter = meter_of(child.pid)
    reading = meter.full(time.monotonic)
    try:
        assert 50 * MB < reading.usage_bytes < 80 * MB
        assert meter.raw() < 90 * MB
        assert sorted(used > 0 for used in reading.by_pid.values()) == [False, True]
    finally:
        meter.close()
        fifo.open("w").close()


def test_a_fork_that_waits_is_not_taken_for_one_before_exec(start_python, monkeypatch: pytest.MonkeyPatch) -> None:
    child = start_python("import os; kept = bytearray(50 * 2**20)\nif os.fork() == 0: time.sleep(600)")
    wait_until(lambda: len(process_tree.descendants(child.pid)) == 1)
    monkeypatch.setattr(linux, "system_call", lambda *asked: -1)
    meter = meter_of(child.pid)
    assert all(meter.full(time.monotonic).by_pid.values())
    meter.close()


def test_a_tree_is_stopped_and_killed_whole(start_python) -> None:
    child = start_python("import os\nfor _ in range(3):\n  if os.fork() == 0:\n    os.fork(); time.sleep(600)")
    wait_until(lambda: len(process_tree.descendants(child.pid)) == 6)
    stopped = process_tree.stop(child.pid)
    assert len(stopped) == 6
    process_tree.send(stopped, signal.SIGCONT)
    known = stopped[0]
    spared = {known, *process_tree.descendants(known)}
    assert set(process_tree.kill(child.pid, known=[known])) == set(stopped) - spared
    wait_until(
        lambda: {pid for pid in process_tree.descendants(child.pid) if not process_tree.is_zombie(pid)} == spared
    )


def test_marked_processes_are_found_by_their_environment() -> None:
    marked = subprocess.Popen(["sleep", "60"], env={**os.environ, "RQMEM_TEST_MARK": "yes"})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "RQMEM_TEST_MARK": "yes, but another"})
    try:
        assert process_tree.kill_marked("RQMEM_TEST_MARK", "yes") == [marked.pid]
        assert marked.wait() == -signal.SIGKILL
        assert other.poll() is None
    finally:
        marked.kill()
        other.kill()
        other.wait()


def test_a_process_is_known_by_pid_and_start_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start = procfs.read_start_time(os.getpid())
    assert start is not None
    assert not process_tree.is_gone(os.getpid(), start)
    assert process_tree.is_gone(os.getpid(), start + 1)
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child_start = procfs.read_start_time(child.pid)
    assert child_start is not None
    assert process_tree.is_gone(child.pid, child_start), "a zombie has ended"
    child.wait()
    assert process_tree.is_gone(child.pid, child_start)
    monkeypatch.setattr(process_tree, "read_start_time", lambda pid: None)  # hidden by hidepid
    assert not process_tree.is_gone(1, 7)


def test_freed_memory_goes_back_to_the_kernel() -> None:
    meter = meter_of(os.getpid())
    blocks = [[bytearray(2000) for _ in range(1000)] for _ in range(30)]
    for block in blocks:
        block.append(block)  # only the collector can free these
    held = meter.full(time.monotonic).usage_bytes
    del blocks, block
    collect_and_trim()
    assert meter.full(time.monotonic).usage_bytes < held - 40 * MB
    meter.close()


def test_after_a_kill_nothing_is_alive_any_more(start_python) -> None:
    child = start_python("import os\nif os.fork() == 0:\n  x = bytearray(500 * 2**20); time.sleep(600)")
    wait_until(lambda: procfs.read_usage(process_tree.descendants(child.pid)[0]).usage_bytes > 500 * MB)
    [killed] = process_tree.kill(child.pid)
    assert process_tree.is_zombie(killed)


def test_what_only_the_groups_stroke_reached_goes_on_too() -> None:
    leader = subprocess.Popen(["sleep", "60"], preexec_fn=os.setpgrp)
    beside = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: os.setpgid(0, leader.pid))
    try:
        stopped = process_tree.stop(leader.pid, group=leader.pid)  # below the leader there is nobody
        assert stopped == []
        wait_until(lambda: {state(leader.pid), state(beside.pid)} == {"T"})
        process_tree.resume(stopped, group=leader.pid)
        wait_until(lambda: "T" not in {state(leader.pid), state(beside.pid)})
    finally:
        for child in (leader, beside):
            child.kill()
            child.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_tree_that_has_settled_is_not_walked_until_somebody_is_born(monkeypatch: pytest.MonkeyPatch) -> None:
    walks, now, last_pid = 0, 0.0, b"7"

    def walk(root: int, known: Any, hidden: set[int]) -> list[int]:
        nonlocal walks
        walks += 1
        return [1, 2]

    monkeypatch.setattr(process_tree, "descendants", walk)
    monkeypatch.setattr(process_tree.time, "monotonic", lambda: now)
    monkeypatch.setattr(process_tree.KeptFile, "read", lambda _: b"0.00 0.01 0.05 1/80 " + last_pid)
    members = process_tree.Members(os.getpid())
    try:
        for _ in range(1000):  # ten seconds of looks
            now += 0.01
            assert members() == [1, 2]
        settled = walks
        assert 2 <= settled < 100
        for _ in range(1000):
            now += 0.01
            assert members() == [1, 2]
        assert walks == settled
        last_pid = b"8"
        members()
        assert walks == settled + 1
    finally:
        members.close()


def test_a_process_that_was_missed_while_it_was_adopted_is_found_without_another_birth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walks = [[1, 2], [1, 2, 3]]  # 3 was a child of neither its dead parent nor of us while we walked
    monkeypatch.setattr(process_tree, "descendants", lambda *_: walks.pop(0) if len(walks) > 1 else walks[0])
    members = process_tree.Members(os.getpid())
    try:
        assert members() == [1, 2]
        wait_until(lambda: members() == [1, 2, 3])
    finally:
        members.close()


def test_threads_that_share_one_heap_get_no_other() -> None:
    """Without it, glibc gives threads that allocate at once a heap each, up to eight for each processor."""
    script = """
import ctypes, os, sys, tempfile, threading
from rqmem.measure import trim
if sys.argv[1:]:
    trim.share_one_heap()
libc, together = ctypes.CDLL(None), threading.Barrier(9)
libc.malloc.restype = ctypes.c_void_p
def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
[each.start() for each in threads]
together.wait(), together.wait()
[each.join() for each in threads]
libc.fdopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as told:
    stream = ctypes.c_void_p(libc.fdopen(os.open(told.name, os.O_WRONLY), b"w"))
    libc.malloc_info(0, stream), libc.fflush(stream)
    print(told.read().count(b"<heap nr"))
"""
    if not hasattr(ctypes.CDLL(None), "malloc_info"):
        pytest.skip("not glibc")
    run = [
        subprocess.run([sys.executable, "-c", script, *more], capture_output=True, text=True) for more in ([], ["x"])
    ]
    assert int(run[0].stdout) > int(run[1].stdout) == 1, run
