"""The tree of processes of one job: finding, stopping and killing all of it.

Found from the worker, which is the subreaper: what a job starts stays below it, ``setsid`` and double
forks included. What was there before the job (RQ's scheduler, processes a successful job left behind)
is named in ``known`` and left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from rqmem.measure.kept_files import KeptFile
from rqmem.measure.procfs import (
    exists,
    find_children,
    host_identity,
    read_children,
    read_start_time,
    read_state,
)

_UNSETTLED_SECONDS, _WALK_SECONDS = 0.01, 0.05
_LOOKS_FOR_A_STOP = 15
_ROUNDS = 20  # a fork bomb outruns a walk; each round stops what the last one missed
_KILL_SECONDS = 1.0
_PAUSE_SECONDS = 0.0003


def descendants(root: int, known: Collection[int] = (), hidden: set[int] | None = None) -> list[int]:
    """All processes below ``root``, without those in ``known`` and what is below them.

    ``hidden`` gets those whose children ``/proc`` hides, in part at least.
    """
    found: list[int] = []
    queue = [root]
    while queue:
        pid = queue.pop()
        try:
            children = read_children(pid)
        except PermissionError:
            children = find_children(pid)
            if hidden is not None:
                hidden.add(pid)
        for child in children:
            if child not in known and child not in found:
                found.append(child)
                queue.append(child)
    return found


class Births:
    """Whether processes or threads are born anywhere in our pid namespace.

    The last field of ``/proc/loadavg`` is the last pid given out there (proc(5)): reading it takes 2 µs. Holds a
    descriptor from the first call to `close`. ``checked``: as `rqmem.measure.kept_files.KeptFile` has it.
    """

    def __init__(self, *, checked: bool = False) -> None:
        self._checked = checked
        self._loadavg: KeptFile | None = None

    def last(self) -> bytes:
        """A text that is another after each birth; where it cannot be read, at each call."""
        try:
            if self._loadavg is None:
                self._loadavg = KeptFile("/proc/loadavg", checked=self._checked)
            return self._loadavg.read().rpartition(b" ")[2]
        except OSError:
            return b"unread" + str(time.monotonic()).encode()

    def close(self) -> None:
        if self._loadavg is not None:
            self._loadavg.close()
            self._loadavg = None


class Members:
    """`descendants` at each call, mostly without a walk while no process or thread was born anywhere.

    A walk takes 100 to 300 µs. A process whose parent ends while we walk can be missed: it is a child of neither
    just then, and its adoption gives out no pid. So for a while after a birth each call walks, and later one in 50 ms,
    until one finds what the last one found. What ended since may still be named. ``checked``: as `Births` has it, and
    `close` too. ``hidden``: as `descendants` found them last.
    """

    def __init__(self, root: int, known: Collection[int] = (), *, checked: bool = False) -> None:
        self._root = root
        self._known = known
        self.hidden: set[int] = set()
        self._births = Births(checked=checked)
        self._last_pid = b""
        self._found: list[int] = []
        self._born_at = self._walked_at = float("-inf")
        self._settled = False

    def leave_out(self, known: Collection[int]) -> None:
        """From now on these are the processes that do not count."""
        if known != self._known or len(self._found) > 1:  # some of these may have ended
            self._last_pid = b""
        self._known = known

    def __call__(self) -> list[int]:
        last_pid = self._births.last()
        now = time.monotonic()
        if last_pid != self._last_pid:
            self._born_at, self._settled = now, False
        unsettled = now - self._born_at < _UNSETTLED_SECONDS
        if unsettled or (not self._settled and now - self._walked_at >= _WALK_SECONDS):
            self.hidden.clear()
            before = self._found
            with contextlib.suppress(OSError):  # descriptors are used up: then those found last
                self._found = descendants(self._root, self._known, self.hidden)
            self._settled = not unsettled and self._found == before
            self._last_pid = last_pid  # as it was before the walk: a birth meanwhile causes another
            self._walked_at = now
        return self._found

    def close(self) -> None:
        self._births.close()


def send(pids: Collection[int], number: int) -> None:
    """Send signal ``number`` to each process that still is there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def stop(root: int, known: Collection[int] = (), *, group: int = 0) -> list[int]:
    """SIGSTOP everything below ``root``, also what is forked meanwhile; returns the stopped pids.

    The process group ``group``, whose leader is one of them, is stopped first and at one stroke: a fork bomb
    would outrun a walk.
    """
    stopped: list[int] = []
    if group:
        _signal_group(group, signal.SIGSTOP)
    for _ in range(_ROUNDS):
        new = [pid for pid in descendants(root, known) if pid not in stopped]
        if not new:
            break
        send(new, signal.SIGSTOP)
        stopped.extend(new)
    return stopped


def resume(stopped: Collection[int], *, group: int = 0) -> None:
    """SIGCONT what `stop` has stopped: also what the group's stroke reached and a walk did not find."""
    if group:
        _signal_group(group, signal.SIGCONT)
    send(stopped, signal.SIGCONT)


def _signal_group(group: int, number: int) -> None:
    """Signal a process group that is led by a process of this number, and no other that took its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(group) == group:
            os.killpg(group, number)


def kill(root: int, known: Collection[int] = (), *, group: int = 0, wait: bool = True) -> list[int]:
    """SIGKILL everything below ``root``, also what is forked meanwhile; returns the killed pids.

    With ``wait`` until it has ended (256 MB take 10 ms), a second at most: a process in a system call that cannot
    be interrupted ends when that does. What we may not signal stays (`beyond_reach`). Children of the calling process
    are not reaped here: their exit status belongs to whoever waits. ``group`` as in `stop`.
    """
    killed: list[int] = []
    if group:
        _signal_group(group, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        alive = [pid for pid in descendants(root, known) if not is_zombie(pid)]
        new = [pid for pid in alive if pid not in killed]
        send(new, signal.SIGKILL)
        killed.extend(new)
        if not alive or not (wait or new) or not (new or any(map(_may_signal, alive))):  # another user's go on
            break
        if not new:
            time.sleep(_PAUSE_SECONDS)
    return killed


def is_zombie(pid: int) -> bool:
    """Whether ``pid`` has ended and only waits to be reaped; also True when it is gone."""
    return read_state(pid) in ("", "Z", "X")


def beyond_reach(pids: Collection[int]) -> list[int]:
    """Those of the processes that go on and that we may not signal: another user's."""
    return [pid for pid in pids if not _may_signal(pid) and not is_zombie(pid)]


def _may_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def stops_at_once(pid: int) -> bool:
    """Whether a process that was sent SIGSTOP has stopped, or does in some 0.3 ms, as code outside the kernel does."""
    return any(read_state(pid) in ("", "T", "t") for _ in range(_LOOKS_FOR_A_STOP))


def reap_zombies(parent: int, others: Mapping[int, int | None]) -> None:
    """Reap ended children of the calling process (``parent``) by pid, but for ``others`` (pid -> start time).

    Never by ``waitpid(-1)``, which would steal the exit status of those.
    """
    for pid in read_children(parent):
        if is_zombie(pid) and not (pid in others and others[pid] == read_start_time(pid)):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def reap(pid: int) -> bool:
    """Whether that child of the calling process has ended; it is reaped then."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # somebody has reaped it
        return True


def end_child(pid: int, seconds: float) -> bool:
    """Let that child have so long to end, then kill it; it is reaped. Whether it ended by itself."""
    deadline = time.monotonic() + seconds
    while not reap(pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(PermissionError, ChildProcessError):  # it has become another user
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def kill_marked(variable: str, value: str) -> list[int]:
    """SIGKILL every process of ours whose environment holds ``variable=value``; returns their pids.

    The mark reaches what a job started by exec, also after its worker died.
    """
    mark = f"{variable}={value}".encode()
    killed = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environ = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if mark in environ.split(b"\0"):
            send([int(entry)], signal.SIGKILL)
            killed.append(int(entry))
    return killed


def is_gone(pid: int, start_time: int) -> bool:
    """Whether exactly that process has certainly ended (its pid may have been given to another).

    A process of another user that ``/proc`` does not show (hidepid) is there all the same.
    """
    if not exists(pid):
        return True
    found = read_start_time(pid)
    return found is not None and (found != start_time or is_zombie(pid))


def has_ended(identity: str) -> bool | None:
    """Whether the process of that `procfs.process_identity` has ended; None: it is not of this machine and boot."""
    host, _, process = identity.rpartition(f"{host_identity()}:")
    pid, _, start_time = process.partition(":")
    if host or not (pid.isdecimal() and start_time.isdecimal()) or process == identity:
        return None
    return is_gone(int(pid), int(start_time))
