"""The ways to get a group under the rules of v2, on a real hierarchy, and that nothing is left behind.

Needs the root of a v2 hierarchy that may be written to (``make cgroup2``); elsewhere all of it is skipped.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqmem.measure import cgroup, cgroup_files
from rqmem.measure import cgroup_places as places
from rqmem.measure.cgroup import Place
from rqmem.testing import wait_until

TOP = Path("/sys/fs/cgroup")
FORK = multiprocessing.get_context("fork")  # where this has to run, Python takes seconds to start
_NEW_CGROUP, _NEW_MOUNTS, _PRIVATE = 0x02000000, 0x00020000, 0x00044000


def enter(group: Path) -> None:
    (group / "cgroup.procs").write_text("0")


def enter_container() -> None:
    """A cgroup namespace whose root is the group that we are in, as in a container."""
    libc = ctypes.CDLL(None, use_errno=True)
    at = str(TOP).encode()
    assert libc.unshare(_NEW_CGROUP | _NEW_MOUNTS) == 0
    assert libc.mount(None, b"/", None, _PRIVATE, None) == 0
    assert libc.umount2(at, 0) == 0
    assert libc.mount(b"cgroup2", at, b"cgroup2", 0, None) == 0


def take_as_told(group: Path, container: bool, orders: Any) -> None:
    enter(group)
    if container:
        enter_container()
    taken = places.take()
    orders.send(("", taken) if isinstance(taken, str) else (taken.way, taken.words))
    orders.recv()
    if not isinstance(taken, str):
        places.leave(taken)


def take_and_leave(group: Path) -> None:
    enter(group)
    while True:
        taken = places.take()
        if not isinstance(taken, str):
            places.leave(taken)


class Taker:
    """A process that takes a place as a worker does, and leaves it when told to."""

    def __init__(self, group: Path, container: bool) -> None:
        self._orders, theirs = FORK.Pipe()
        self.process = FORK.Process(target=take_as_told, args=(group, container, theirs))
        self.process.start()
        theirs.close()
        self.way, self.words = self._orders.recv()

    def leave(self) -> None:
        self._orders.send("leave")
        self.process.join()


@pytest.fixture
def parent() -> Iterator[Path]:
    """A group below the root of all, which hands the memory controller down to it."""
    controllers = TOP / "cgroup.controllers"
    if not controllers.exists() or (TOP / "cgroup.type").exists() or not os.access(controllers.parent, os.W_OK):
        pytest.skip("no root of a cgroup v2 hierarchy that may be written to")
    path = TOP / f"test-{os.getpid()}"
    path.mkdir()
    yield path
    (path / "cgroup.kill").write_text("1")
    for directory, _, _ in os.walk(path, topdown=False):
        wait_until(lambda directory=directory: can_remove(Path(directory)))  # type: ignore[misc]


def can_remove(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return not group.exists()
    return True


Start = Callable[..., Taker]


@pytest.fixture
def start() -> Iterator[Start]:
    takers: list[Taker] = []

    def start(group: Path, *, container: bool = False) -> Taker:
        takers.append(Taker(group, container))
        return takers[-1]

    yield start
    for taker in takers:
        taker.process.kill()
        taker.process.join()


Others = Callable[[Path], int]


@pytest.fixture
def somebody_else() -> Iterator[Others]:
    """Another process in a group: a shell, tini, Redis."""
    started: list[subprocess.Popen[bytes]] = []

    def somebody_else(group: Path) -> int:
        started.append(subprocess.Popen(["sleep", "6000"], preexec_fn=lambda: enter(group)))
        return started[-1].pid

    yield somebody_else
    for each in started:
        each.kill()
        each.wait()


def members(group: Path) -> list[int]:
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def handed_down(group: Path) -> str:
    return (group / "cgroup.subtree_control").read_text().strip()


def inner(group: Path) -> list[str]:
    return [path.name for path in group.iterdir() if path.is_dir()]


def as_it_was(group: Path, *pids: int) -> bool:
    return not inner(group) and not handed_down(group) and members(group) == list(pids)


def test_alone_in_its_group_a_worker_moves_to_a_leaf_and_back(parent: Path, start: Start) -> None:
    taker = start(parent)
    assert taker.way == "alone"
    assert members(parent / inner(parent)[0]) == [taker.process.pid]
    assert handed_down(parent) == "memory"
    taker.leave()
    assert as_it_was(parent)


def test_next_to_others_groups_are_made_beside(parent: Path, start: Start, somebody_else: Others) -> None:
    (parent / "cgroup.subtree_control").write_text("+memory")
    own = parent / "own"
    own.mkdir()
    other = somebody_else(own)
    taker = start(own)
    assert (taker.way, taker.words) == ("beside", f"v2, next to the worker's own group: {parent}")
    taker.leave()
    assert as_it_was(own, other)
    assert inner(parent) == ["own"]


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [("memory.max", "500M", "its memory.max would not hold next to it"),
     ("memory.high", "500M", "its memory.high would not hold next to it"),
     ("", "", "does not hand the memory controller down")],
    ids=["limited", "throttled", "not handed down"],
)  # fmt: skip
def test_where_no_way_is_open_both_reasons_are_told(
    parent: Path, start: Start, somebody_else: Others, limit: str, value: str, reason: str
) -> None:
    own = parent / "own"
    own.mkdir()
    if limit:
        (parent / "cgroup.subtree_control").write_text("+memory")
        (own / limit).write_text(value)
    other = somebody_else(own)
    taker = start(own)
    assert taker.way == ""
    assert reason in taker.words
    if limit:
        assert f"{own} holds other processes too" in taker.words
    assert members(own) == [other, taker.process.pid]
    taker.leave()
    assert as_it_was(own, other)


def test_nothing_is_made_in_a_slice_of_systemds(parent: Path, start: Start, somebody_else: Others) -> None:
    piece = parent / "system.slice"
    own = piece / "own"
    own.mkdir(parents=True)
    for group in (parent, piece):
        (group / "cgroup.subtree_control").write_text("+memory")
    somebody_else(own)
    assert f"{piece} is systemd's" in start(own).words


@pytest.mark.parametrize("mark", ["user.delegate", "trusted.delegate", ""])
def test_in_a_group_that_is_given_to_us_others_move_too(
    parent: Path, start: Start, somebody_else: Others, mark: str
) -> None:
    if mark:
        os.setxattr(parent, mark, b"1")
    other = somebody_else(parent)
    taker = start(parent, container=not mark)
    assert taker.way == "whole"
    assert set(members(parent / inner(parent)[0])) == {other, taker.process.pid}
    taker.leave()
    assert as_it_was(parent, other)


def test_the_last_of_two_workers_moves_all_back(parent: Path, start: Start, somebody_else: Others) -> None:
    other = somebody_else(parent)
    os.setxattr(parent, "user.delegate", b"1")
    first = start(parent)
    second = start(parent / inner(parent)[0])
    assert second.way == "whole"
    first.leave()
    assert handed_down(parent) == "memory"
    assert [set(members(parent / name)) for name in inner(parent)] == [{other, second.process.pid}]
    second.leave()
    wait_until(lambda: as_it_was(parent, other))


def test_what_a_killed_worker_left_the_next_one_takes_over(parent: Path, start: Start, somebody_else: Others) -> None:
    os.setxattr(parent, "user.delegate", b"1")
    other = somebody_else(parent)
    first = start(parent)
    leaf = parent / inner(parent)[0]
    (parent / leaf.name.replace("-worker", "-1")).mkdir()  # of a horse
    first.process.kill()
    first.process.join()
    assert members(leaf) == [other]
    second = start(leaf)
    assert leaf.name not in inner(parent)
    second.leave()
    (parent / leaf.name.replace("-worker", "-1")).rmdir()  # which `remove_stale` does for a worker
    assert as_it_was(parent, other)


def test_workers_that_come_and_go_and_are_killed_at_any_moment_leave_nothing(
    parent: Path, start: Start, somebody_else: Others
) -> None:
    os.setxattr(parent, "user.delegate", b"1")
    other = somebody_else(parent)

    def where() -> Path:
        return TOP / Path(f"/proc/{other}/cgroup").read_text().strip().removeprefix("0::/")

    for number in range(12):
        busy = [FORK.Process(target=take_and_leave, args=(where(),)) for _ in range(2)]
        for each in busy:
            each.start()
            wait_until(lambda: where() != parent)
        time.sleep(random.Random(number).random() / 5)  # any moment will do
        for each in busy:
            each.kill()
            each.join()
    last = start(where())
    assert last.way == "whole"
    cgroup.remove_stale(Place("v2", parent))  # as each worker does after that: a probe of a killed one may be left
    last.leave()
    wait_until(lambda: as_it_was(parent, other))


def test_a_leaf_is_not_taken_for_our_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(group: str) -> cgroup_files.Own | None:
        texts = {"/proc/self/cgroup": f"0::{group}\n",
                 "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"}  # fmt: skip
        monkeypatch.setattr(cgroup_files, "read_text", texts.__getitem__)
        return cgroup_files.read_own()

    for group, path in {
        "/unit/rqmem-12-99-worker": TOP / "unit",
        "/unit": TOP / "unit",
        "/unit/rqmem-12-99-3": TOP / "unit/rqmem-12-99-3",
        "/unit/rqmem-x-99-worker": TOP / "unit/rqmem-x-99-worker",
    }.items():
        assert own(group) == cgroup_files.Own("v2", path, TOP)
