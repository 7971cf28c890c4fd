"""Facts on the machine: parsed from captured text, and plausible where they are read for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from rqmem.measure import cgroup_files as cgroup
from rqmem.measure import machine
from rqmem.measure.cgroup_files import Own, Version
from rqmem.measure.procfs import parse_kb

MB = 2**20


def test_total_memory() -> None:
    meminfo = "MemTotal:       24684084 kB\nHugePages_Total:       0\nMemAvailable:   24347088 kB\n"
    assert parse_kb(meminfo) == {"MemTotal": 24684084, "MemAvailable": 24347088}
    assert machine.total_bytes() > 64 * MB


def own(version: Version, top: Path, inner: str, files: dict[str, str]) -> Own:
    """A group on plain files below ``top``, as this process's."""
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Own(version, top / inner, top)


def test_the_smallest_limit_on_the_way_up_is_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = own(
        "v2",
        tmp_path / "top",
        "a/b",
        {
            "memory.max": "max\n",
            "a/memory.max": "67108864\n",
            "a/b/memory.max": "134217728\n",
        },
    )
    (tmp_path / "memory.max").write_text("1")  # above what is mounted
    monkeypatch.setattr(cgroup, "read_own", lambda: found)
    assert machine.container_limit_bytes() == 64 * MB
    (tmp_path / "top/a/memory.max").write_text("max\n")
    assert machine.container_limit_bytes() == 128 * MB
    (tmp_path / "top/a/b/memory.max").write_text(str(2**50))
    assert machine.container_limit_bytes() is None, "above the machine's memory it limits nothing"
    (tmp_path / "top/a/b/memory.max").unlink()
    (tmp_path / "top/memory.max").unlink()
    assert machine.container_limit_bytes() is None, "the root has no limit"


@pytest.mark.parametrize(("limit", "expected"), [(9223372036854771712, None), (256 * MB, 256 * MB)])
def test_v1_tells_the_limit_of_unseen_ancestors_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, expected: int | None
) -> None:
    stat = f"cache 481734656\nrss 1687552\nhierarchical_memory_limit {limit}\ntotal_rss 1687552\n"
    found = own("v1", tmp_path, ".", {"memory.stat": stat})
    monkeypatch.setattr(cgroup, "read_own", lambda: found)
    assert machine.container_limit_bytes() == expected


@pytest.mark.parametrize(
    ("version", "file", "text", "kills"),
    [
        ("v1", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", 2),
        ("v1", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", None),
        ("v2", "memory.events", "low 0\nhigh 0\nmax 41\noom 1\noom_kill 3\n", 3),
        ("v2", "cgroup.procs", "", None),
    ],
    ids=["v1", "v1 before 4.13", "v2", "v2 root"],
)
def test_the_kernel_counts_kills_in_a_group(
    tmp_path: Path, version: Version, file: str, text: str, kills: int | None
) -> None:
    assert cgroup.read_kernel_kills(version, own(version, tmp_path, ".", {file: text}).path) == kills


def test_without_groups_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "read_own", lambda: None)
    assert machine.container_limit_bytes() is None


OF_OTHERS = "low 0\nhigh 0\nmax 41\noom 1\noom_kill 7\n"


@pytest.mark.parametrize(
    ("version", "files"),
    [
        ("v1", {"a/memory.oom_control": "under_oom 0\noom_kill 2\n", "a/w/memory.oom_control": "oom_kill 7\n"}),
        ("v2", {"a/memory.events": OF_OTHERS, "a/memory.events.local": "oom 1\noom_kill 2\n"}),
    ],
    ids=["v1", "v2"],
)
def test_kills_in_groups_below_or_next_to_ours_are_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: Version, files: dict[str, str]
) -> None:
    found = own(version, tmp_path, "a", {**files, "b/memory.events": OF_OTHERS, "b/memory.events.local": OF_OTHERS})
    monkeypatch.setattr(cgroup, "read_actual", lambda: found)
    assert machine.oom_kills() == ("group", 2)
    seen = machine.OomKills()
    assert seen.lately() is None, "nothing is known before it begins"
    seen.begin()
    assert seen.lately() is None
    for file in files:
        path = tmp_path / file
        path.write_text(path.read_text().replace("oom_kill 7", "oom_kill 8"))
    assert seen.lately() is None
    for file in files:
        path = tmp_path / file
        path.write_text(path.read_text().replace("oom_kill 2", "oom_kill 3"))
    assert seen.lately() == "group"
    seen.look()
    assert seen.lately() == "group", "within the last two looks"
    seen.look()
    assert seen.lately() is None


def test_without_a_group_kills_of_the_machine_are_counted_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "read_actual", lambda: None)
    counted = iter(["oom_kill 4\n", "oom_kill 4\n", "oom_kill 5\n"])
    monkeypatch.setattr(machine, "read_text", lambda path: next(counted) if path == Path("/proc/vmstat") else None)
    seen = machine.OomKills()
    seen.begin()
    assert seen.lately() is None
    assert seen.lately() == "machine"
