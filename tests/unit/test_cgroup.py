"""Memory groups: parsing on captured text, the kernel's part on a real group, some of v2's files on plain ones."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqmem.measure import cgroup, cgroup_files, cgroup_places, process_tree, procfs
from rqmem.measure.cgroup import Group, Place
from rqmem.measure.cgroup_files import Own, Parts
from rqmem.testing import wait_until
from tests.kernel_jobs import FOLDER

MB = 2**20

V1_GROUPS = """\
9:name=systemd:/
8:pids:/
4:memory:/process_api/2b95ce09
3:cpuset:/
0::/
"""
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_DOCKER_GROUPS = "11:cpu,cpuacct:/docker/4f1c\n5:memory:/docker/4f1c\n1:name=systemd:/docker/4f1c\n"
V1_DOCKER_MOUNTS = """\
640 639 0:33 /docker/4f1c /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:18 - cgroup cgroup rw,cpu,cpuacct
644 639 0:29 /docker/4f1c /sys/fs/cgroup/memory ro,nosuid,nodev master:14 - cgroup cgroup rw,memory
"""
V2_MOUNTS = (
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4"
    " - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
)
V2_DOCKER_MOUNTS = """\
612 600 0:51 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A
618 612 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("groups", "mounts", "own"),
    [
        (V1_GROUPS, V1_MOUNTS, ("v1", "/sys/fs/cgroup/memory/process_api/2b95ce09", "/sys/fs/cgroup/memory")),
        (V1_DOCKER_GROUPS, V1_DOCKER_MOUNTS, ("v1", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory")),
        (
            "0::/system.slice/rqmem.service\n",
            V2_MOUNTS,
            ("v2", "/sys/fs/cgroup/system.slice/rqmem.service", "/sys/fs/cgroup"),
        ),
        ("0::/\n", V2_DOCKER_MOUNTS, ("v2", "/sys/fs/cgroup", "/sys/fs/cgroup")),
        ("0::/\n", V2_MOUNTS, ("v2", "/sys/fs/cgroup", "/sys/fs/cgroup")),
        (
            "0::/a:b c\n",
            "30 23 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n",
            ("v2", "/my groups/a:b c", "/my groups"),
        ),
        ("4:memory:/elsewhere\n", V1_DOCKER_MOUNTS, None),
        ("0::/../beside\n", V2_MOUNTS, None),
        ("0::/\n", "30 23 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", None),
        ("3:cpuset:/\n", V1_MOUNTS, None),
        ("4:memory:/\n", "", None),
    ],
    ids=[
        "v1",
        "v1 in Docker",
        "v2 service",
        "v2 in Docker",
        "v2 root",
        "odd names",
        "not in the mount",
        "above the namespace",
        "mounted from elsewhere",
        "no controller",
        "nothing mounted",
    ],
)
def test_the_group_this_process_is_in(groups: str, mounts: str, own: tuple[str, str, str] | None) -> None:
    found = cgroup_files.parse_own(groups, mounts)
    assert found == (own and Own(own[0], Path(own[1]), Path(own[2])))


V1_STAT = """\
cache 25165824
rss 1687552
shmem 20971520
inactive_file 4194304
hierarchical_memory_limit 268435456
total_cache 26214400
total_rss 2687552
total_shmem 21971520
total_inactive_anon 24659072
total_active_anon 0
total_inactive_file 4194304
total_active_file 40960
total_unevictable 0
"""
V2_STAT = """\
anon 73400320
file 31457280
kernel 2097152
kernel_stack 65536
slab_reclaimable 1048576
shmem 10485760
inactive_anon 83886080
active_anon 0
unevictable 0
inactive_file 12582912
active_file 8388608
"""
V2_EVENTS = "low 0\nhigh 0\nmax 41\noom 1\noom_kill 3\noom_group_kill 1\n"


def test_a_charge_has_its_parts_with_sub_groups() -> None:
    assert cgroup_files.parse_parts(V1_STAT) == Parts(2687552, 21971520, 4194304 + 40960, 0)
    assert cgroup_files.parse_parts("cache 9\nrss 5\nshmem 7\nactive_file 1\n") == Parts(5, 7, 1, 0)
    assert cgroup_files.parse_parts(V2_STAT) == Parts(70 * MB, 10 * MB, 20 * MB, MB)


@pytest.mark.parametrize(
    ("anon", "file", "anon_lru", "file_lru", "unevictable", "droppable"),
    [
        (50, 100, 50, 100, 0, 100),
        (50, 100, 50, 30, 70, 30),
        (50, 30, 50, 100, 0, 30),
        (50, 70, 50, 70, 30, 40),
        (50, 100, 20, 100, 30, 100),
    ],
    ids=[
        "all of it",
        "not what is locked",
        "not what a file has lost",
        "not both, added up",
        "locked memory is no file",
    ],
)
def test_only_page_cache_that_can_be_dropped_counts_as_such(
    anon: int, file: int, anon_lru: int, file_lru: int, unevictable: int, droppable: int
) -> None:
    stat = f"anon {anon}\nfile {file}\nactive_anon {anon_lru}\nactive_file {file_lru}\nunevictable {unevictable}\n"
    assert cgroup_files.parse_parts(stat).file_bytes == droppable


def test_counters_and_limits() -> None:
    assert cgroup_files.parse_counters("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")["oom_kill"] == 2
    assert cgroup_files.parse_counters(V2_EVENTS)["oom"] == 1
    assert cgroup_files.parse_limit("max\n") is None
    assert cgroup_files.parse_limit("268435456\n") == 256 * MB


@pytest.mark.parametrize("name", ["rqmem-12-x-1", "rqmem-12-99", "rqmem-12-99-", "xrqmem-1-2-3", "docker-1-2-3"])
def test_a_group_names_its_worker_or_is_somebody_elses(name: str) -> None:
    assert cgroup.parse_worker("rqmem-12-99-1") == (12, 99)
    assert cgroup.parse_worker("rqmem-12-99-probe") == (12, 99)
    assert cgroup.parse_worker(name) is None


def write_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is written, by ``group/file``; the files need not be there."""
    written: dict[str, str] = {}

    def write(path: Path, value: str) -> None:
        written[f"{path.parent.name}/{path.name}"] = value

    monkeypatch.setattr(cgroup, "write", write)
    return written


def test_a_v2_group_is_killed_whole_and_does_not_swap(tmp_path: Path, writes: dict[str, str]) -> None:
    group = Group.make(Place("v2", tmp_path), "rqmem-1-2-3", 64 * MB)
    assert list(writes.items()) == [
        ("rqmem-1-2-3/memory.oom.group", "1"),
        ("rqmem-1-2-3/memory.swap.max", "0"),
        ("rqmem-1-2-3/memory.max", str(64 * MB)),
    ]
    assert group.set_limit(None)
    assert writes["rqmem-1-2-3/memory.max"] == "max"
    group.enter()
    assert writes["rqmem-1-2-3/cgroup.procs"] == "0"
    assert group.remove()
    assert group.remove(), "that it is gone is what was asked for"


def test_a_group_that_cannot_be_limited_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Group.make(Place("v2", tmp_path), "rqmem-1-2-3", 64 * MB)
    assert list(tmp_path.iterdir()) == []


def test_reading_a_v2_group(tmp_path: Path) -> None:
    for name, text in {
        "memory.stat": V2_STAT,
        "memory.events": V2_EVENTS,
        "memory.events.local": "oom 0\noom_kill 0\n",
        "memory.current": str(105 * MB),
        "memory.max": "max",
    }.items():
        write_file(tmp_path / name, text)
    group = Group("v2", tmp_path)
    assert group.parts() == Parts(70 * MB, 10 * MB, 20 * MB, MB)
    assert group.kernel_kills() == 3
    assert not group.hit_limit(), "a sub-group's limit was hit"
    (tmp_path / "memory.events.local").unlink()
    assert group.hit_limit()
    assert group.peak_bytes() == 0, "before kernel 5.19"
    write_file(tmp_path / "memory.peak", "123")
    assert group.peak_bytes() == 123
    assert not group.set_limit(80 * MB), "v2 would kill"
    assert (tmp_path / "memory.max").read_text() == "max"
    assert group.set_limit(90 * MB), "the rest is cache, 21 MB of it"
    assert (tmp_path / "memory.max").read_text() == str(90 * MB)


def test_without_a_controller_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_places, "read_own", lambda: None)
    assert cgroup_places.take() == "no memory controller is mounted"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    taken = cgroup_places.take()
    if isinstance(taken, str):
        pytest.skip(f"no memory group can be made: {taken}")
    yield taken.place
    cgroup_places.leave(taken)


def name_of(pid: int, number: str) -> str:
    return f"rqmem-{pid}-{procfs.read_start_time(pid)}-{number}"


@pytest.fixture
def group(place: Place) -> Iterator[Group]:
    group = Group.make(place, name_of(os.getpid(), "test"), 64 * MB)
    yield group
    group.kill()
    wait_until(group.remove)


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(group: Group) -> Iterator[Start]:
    """Start Python in the group with a body of code; it waits when the body is through."""
    children: list[subprocess.Popen[str]] = []

    def start(body: str) -> subprocess.Popen[str]:
        code = f"import sys\n{body}\nprint('ready', flush=True)\nsys.stdin.readline()"
        child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, preexec_fn=group.enter)
        children.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child

    yield start
    group.kill()
    for child in children:
        child.communicate()


GROW = "held = []\nwhile True: held.append(bytearray(2**20))"


def is_set(alarm: int) -> bool:
    return bool(select.select([alarm], [], [], 0)[0])


@pytest.fixture
def v1(group: Group) -> None:
    if group.version == "v2":
        pytest.skip("v2 tells by other means, and hands no controller to a job's own group")


def test_taking_a_place_leaves_nothing_behind(place: Place) -> None:
    assert not [path for path in place.path.iterdir() if path.name.endswith("-probe")]


def test_in_v2_a_hit_of_a_limit_set_before_is_none_of_this_one(tmp_path: Path) -> None:
    """The kernel counts them from the group's beginning. On plain files."""
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("0\n")
    (tmp_path / "memory.stat").write_text("")
    events = tmp_path / "memory.events.local"
    events.write_text("max 3\noom 1\noom_kill 1\n")
    group = Group("v2", tmp_path)
    assert group.hit_limit()
    assert group.set_limit(128 * MB)
    assert not group.hit_limit(), "nothing was used under this limit"
    events.write_text("max 4\noom 2\noom_kill 2\n")
    assert group.hit_limit()


def test_the_kernel_keeps_the_limit(group: Group, start: Start) -> None:
    assert not group.hit_limit()
    assert start(GROW).wait() == -signal.SIGKILL
    kills = group.kernel_kills()
    assert kills in (1, 2), "v2 kills the whole group, and counts the process that it began with twice"
    assert group.hit_limit()
    assert 63 * MB <= group.peak_bytes() <= 64 * MB
    assert group.set_limit(128 * MB)
    assert not group.hit_limit(), "nothing was used under this limit"
    assert group.peak_bytes() >= 63 * MB, "since it was made"
    assert start(GROW).wait() == -signal.SIGKILL
    assert group.kernel_kills() == 2 * kills
    assert 127 * MB <= group.peak_bytes() <= 128 * MB


@pytest.mark.parametrize("threads", [0, 2])
def test_a_process_enters_with_all_its_threads(group: Group, threads: int) -> None:
    code = f"""
import threading, time
from pathlib import Path
from typing import Any
from rqmem.measure.cgroup import Group
for _ in range({threads}):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
Group({group.version!r}, Path({str(group.path)!r})).enter()
held = bytearray(20 * 2**20)
print("ready", flush=True)
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=-1, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert group.pids() == [child.pid]
    of_threads = group.path / ("tasks" if group.version == "v1" else "cgroup.threads")
    assert len(of_threads.read_text().split()) == 1 + threads
    assert group.parts().anon_bytes >= 19 * MB
    child.kill()
    child.communicate()


def test_a_kill_for_an_ancestors_limit_is_told_apart(v1: None, group: Group) -> None:
    inner = Group.make(Place(group.version, group.path), "job's own", 512 * MB)
    child = subprocess.Popen([sys.executable, "-c", GROW], preexec_fn=inner.enter)
    assert child.wait() == -signal.SIGKILL
    assert (inner.kernel_kills(), inner.hit_limit()) == (1, False)
    assert (group.kernel_kills(), group.hit_limit()) == (1, True)


def test_the_alarm_goes_off_when_the_kernel_kills(v1: None, group: Group, start: Start) -> None:
    alarm = group.alarm()
    assert alarm is not None
    start("held = bytearray(24 * 2**20)")
    assert not is_set(alarm)
    assert start(GROW).wait() == -signal.SIGKILL
    assert is_set(alarm)
    os.close(alarm)


def test_page_cache_is_dropped_at_the_limit_and_is_not_held(group: Group, start: Start) -> None:
    file = f"tempfile.TemporaryFile(dir={FOLDER!r})"  # pytest's folder may be a tmpfs, which is never dropped
    write = f"import tempfile\nwith {file} as file:\n  for _ in range(80): file.write(bytes(2**20))"
    child = start(write)
    assert child.poll() is None
    assert group.kernel_kills() == 0
    assert group.parts().anon_bytes < 16 * MB
    assert group.parts().shmem_bytes < MB


def test_what_is_written_to_memory_without_being_mapped_is_held(group: Group, start: Start) -> None:
    shared = Path(f"/dev/shm/rqmem-test-{os.getpid()}")
    try:
        child = start(f"with open({str(shared)!r}, 'wb') as file: file.write(bytes(30 * 2**20))")
        assert group.parts().shmem_bytes >= 29 * MB
        child.communicate()
        assert group.parts().shmem_bytes >= 29 * MB, "it stays while the file does"
    finally:
        shared.unlink(missing_ok=True)
    wait_until(lambda: group.parts().shmem_bytes < MB)


def test_a_limit_below_what_is_in_use_is_refused(group: Group, start: Start) -> None:
    child = start("held = bytearray(40 * 2**20)")
    assert not group.set_limit(24 * MB)
    assert child.poll() is None
    assert group.set_limit(56 * MB)
    assert group.set_limit(None)
    start("held = bytearray(80 * 2**20)")
    assert group.kernel_kills() == 0
    assert group.parts().anon_bytes >= 120 * MB


def test_kill_ends_all_of_it_and_then_it_can_be_removed(group: Group, start: Start) -> None:
    child = start(
        "import os, time\nfor _ in range(3):\n  if os.fork() == 0:\n    os.setsid(); os.fork(); time.sleep(600)"
    )
    wait_until(lambda: len(group.pids()) == 7)
    inner = group.path / "job's own"
    inner.mkdir()
    pids = group.pids()
    (inner / "cgroup.procs").write_text(str(pids[-1]))
    assert group.pids() == pids
    assert not group.remove()
    assert inner.exists()
    group.kill()
    assert group.pids() == []
    assert all(process_tree.is_zombie(pid) for pid in pids)
    assert child.wait() == -signal.SIGKILL
    wait_until(group.remove)
    assert not group.path.exists()


def test_groups_of_dead_workers_are_removed_and_no_others(place: Place) -> None:
    dead = subprocess.Popen(["sleep", "60"])
    left = [Group.make(place, name_of(dead.pid, number), 64 * MB) for number in ("1", "2")]
    ours = Group.make(place, name_of(os.getpid(), "1"), 64 * MB)
    somebodys = Group.make(place, f"rqmem-test-{os.getpid()}", 64 * MB)
    survivor = subprocess.Popen(["sleep", "60"], preexec_fn=left[1].enter)
    try:
        assert left[0].path not in cgroup.remove_stale(place)
        dead.kill()
        dead.wait()
        removed = cgroup.remove_stale(place)
        assert left[0].path in removed
        assert not left[0].path.exists()
        assert left[1].path.exists(), "somebody lives in it"
        assert {ours.path, somebodys.path}.isdisjoint(removed)
    finally:
        dead.kill()
        survivor.kill()
        survivor.wait()
        for group in (*left, ours, somebodys):
            wait_until(group.remove)
