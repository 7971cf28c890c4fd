"""Where groups of ours can be made: found, arranged where v2's rules ask for it, and left as it was.

v1 lets a group hold processes and further groups. v2 does not: a group hands a controller down only while no process is
in it, the root of all excepted (``cgroup-v2.rst``, "No Internal Process Constraint"). So there are three ways:

- alone: all processes of our own group are this one, its ancestors and descendants. They move to a leaf in it;
- whole: the group holds others too, but is given to us: the root group of a container (all that its cgroup namespace
  shows), or one that systemd has delegated. All of them move to a leaf, as entrypoints of containers in containers do;
- beside: the parent of our own group hands the memory controller down and may be written to. Ours are made there; but
  not where our own group has limits, which would not hold next to it, and not in a slice, which is systemd's.

A leaf is called ``rqmem-<pid>-<start time>-worker`` after the worker that made it. Who leaves last moves its processes
back; what a killed worker has left, the next one takes over. A lock on the directory (flock) keeps two workers from
arranging it at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rqmem.measure import process_tree, procfs
from rqmem.measure.cgroup import Group, Place, move, parse_worker, read_members, write
from rqmem.measure.cgroup_files import LEAF_SUFFIX, read_own
from rqmem.values import dataclass

_WORDS = {
    "own": "below the worker's own group",
    "alone": "in the worker's own group, which holds no other processes",
    "root": "in the root group",
    "whole": "in the worker's own group, all of whose processes wait in a leaf meanwhile",
    "beside": "next to the worker's own group",
}
_UNLIMITED = {
    "memory.max": "max",
    "memory.high": "max",
    "memory.swap.max": "max",
    "pids.max": "max",
    "cpu.max": "max",
    "cpuset.cpus": "",
}
_DELEGATED = ("user.delegate", "trusted.delegate")  # systemd marks what it has given away
_SYSTEMD = Path("/run/systemd/system")
_ROUNDS = 20  # what is moved may fork meanwhile
_LOCK_SECONDS = 5.0
_PROBE_BYTES = 64 * 2**20


Way = Literal["own", "alone", "root", "whole", "beside"]


@dataclass(frozen=True)
class TakenPlace:
    """A place that is ready for groups until `leave`.

    Attributes:
        way: ``own`` is v1's; the others are v2's (see the module).
        leaf: where our processes wait, or a mark that we are here; None: nothing had to be arranged.
    """

    place: Place
    way: Way
    home: Path
    leaf: Path | None = None

    @property
    def words(self) -> str:
        """``v2, next to the worker's own group: /sys/fs/cgroup/app``."""
        return f"{self.place.version}, {_WORDS[self.way]}: {self.place.path}"


def take() -> TakenPlace | str:
    """Find a place, arrange it, and try it by making a group; else the reason why there is none."""
    own = read_own()
    if own is None:
        return "no memory controller is mounted"
    if own.version == "v1":
        return _tried(TakenPlace(Place("v1", own.path), "own", own.path))
    try:
        with _locked(own.path):
            inside = _take_inside(own.path, own.top)
    except OSError as error:
        inside = f"{own.path} is not writable: {error.strerror}"
    taken = _tried(inside) if isinstance(inside, TakenPlace) else inside
    if isinstance(taken, TakenPlace):
        return taken
    reason = _why_not_beside(own.path, own.top)
    beside = reason or _tried(TakenPlace(Place("v2", own.path.parent), "beside", own.path))
    return beside if isinstance(beside, TakenPlace) else f"{taken}; {beside}"


def leave(taken: TakenPlace) -> None:
    """Undo what `take` has arranged, unless another worker needs it still."""
    leaf, base = taken.leaf, taken.place.path
    if leaf is None:
        return
    with contextlib.suppress(OSError), _locked(base):
        others = [each for each in _leaves(base) if each != leaf and not _is_stale(each)]
        if others:
            _move(leaf, others[0])
        elif any(_needs_memory(each) for each in base.iterdir() if each.is_dir() and not parse_worker(each.name)):
            return  # somebody else's groups; our leaf stays, for the next worker
        else:
            _adopt_stale(base, leaf)
            _hand_down(base, "-")
            _move(leaf, base)
        leaf.rmdir()


def _tried(taken: TakenPlace) -> TakenPlace | str:
    path = taken.place.path
    try:
        Group.make(taken.place, f"{_our_name()}-probe", _PROBE_BYTES).remove()
        if not os.access(path / "cgroup.procs", os.W_OK):  # else processes cannot be moved about in it
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        leave(taken)
        return f"{path} is not writable: {error.strerror}"
    return taken


def _take_inside(path: Path, top: Path) -> TakenPlace | str:
    """Have the groups in ``path`` get the memory controller, under the lock."""
    if "memory" not in (path / "cgroup.controllers").read_text().split():
        return f"{path} has no memory controller"
    leaf = path / f"{_our_name()}{LEAF_SUFFIX}"
    root = _is_root(path)
    pids = [] if root else read_members(path)  # those of the root may stay
    if _hands_down(path) and not _leaves(path) and not pids:
        return TakenPlace(Place("v2", path), "root" if root else "alone", path)  # not arranged by us, nor ours to undo
    if root and _SYSTEMD.exists():
        return f"{path} is systemd's"
    if 0 in pids:
        return f"{path} holds processes of another pid namespace"
    alone = _are_ours([*pids, *_waiting(path)])
    given = path == top or _is_delegated(path)
    shared = any(not _is_stale(each) for each in _leaves(path))
    if not (alone or given or shared):
        return f"{path} holds other processes too"
    leaf.mkdir(exist_ok=True)
    try:
        if pids:
            _move(path, leaf)
        _hand_down(path, "+")
    except OSError:
        with contextlib.suppress(OSError):
            _move(leaf, path)
            leaf.rmdir()
        raise
    _adopt_stale(path, leaf)
    return TakenPlace(Place("v2", path), "root" if root else "alone" if alone or not given else "whole", leaf, leaf)


def _adopt_stale(path: Path, leaf: Path) -> None:
    """What waits in leaves of dead workers waits in ours from now on."""
    for stale in _leaves(path):
        if stale != leaf and _is_stale(stale):
            with contextlib.suppress(OSError):
                _move(stale, leaf)
                stale.rmdir()


def _why_not_beside(path: Path, top: Path) -> str:
    """Why groups of ours may not be made in the parent of our own (v2); "" where they may."""
    parent = path.parent
    if not parent.is_relative_to(top):
        return "its parent cannot be seen"
    if parent.name.endswith(".slice") or (_is_root(parent) and _SYSTEMD.exists()):
        return f"{parent} is systemd's"
    try:
        if not _hands_down(parent):
            return f"{parent} does not hand the memory controller down"
        for name, unlimited in _UNLIMITED.items():
            if (path / name).exists() and (path / name).read_text().split()[:1] != unlimited.split():
                return f"its {name} would not hold next to it"
    except OSError as error:
        return f"{parent} cannot be read: {error.strerror}"
    return ""


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        yield
    finally:
        os.close(directory)


def _our_name() -> str:
    return f"rqmem-{os.getpid()}-{procfs.read_start_time(os.getpid())}"


def _leaves(path: Path) -> list[Path]:
    return sorted(path.glob(f"rqmem-*{LEAF_SUFFIX}"))


def _is_stale(leaf: Path) -> bool:
    worker = parse_worker(leaf.name)
    return worker is not None and process_tree.is_gone(*worker)


def _waiting(path: Path) -> list[int]:
    return [pid for leaf in _leaves(path) for pid in read_members(leaf)]


def _needs_memory(group: Path) -> bool:
    """Whether somebody has set a limit for it, or hands the memory controller further down."""
    limits = (group / "memory.max", group / "memory.high")
    return _hands_down(group) or any(limit.exists() and limit.read_text() != "max\n" for limit in limits)


def _are_ours(pids: list[int]) -> bool:
    """Whether they all are this process, its ancestors or descendants."""
    return {*_lineage(os.getpid()), *process_tree.descendants(os.getpid())}.issuperset(pids)


def _lineage(pid: int) -> list[int]:
    """``pid``, its parent, and so on as far as ``/proc`` shows."""
    pids = []
    while pid:
        pids.append(pid)
        pid = procfs.read_parent(pid)
    return pids


def _is_root(path: Path) -> bool:
    """Whether it is the root of all, which alone may hold processes and hand controllers down."""
    return not (path / "cgroup.type").exists()


def _is_delegated(path: Path) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _hands_down(path: Path) -> bool:
    return "memory" in (path / "cgroup.subtree_control").read_text().split()


def _hand_down(path: Path, sign: Literal["+", "-"]) -> None:
    if _hands_down(path) != (sign == "+"):
        write(path / "cgroup.subtree_control", f"{sign}memory")


def _move(source: Path, target: Path) -> None:
    """Move all processes of one group to another; raises OSError where that cannot be done."""
    for _ in range(_ROUNDS):
        pids = read_members(source)
        if not pids:
            return
        move(pids, target)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
