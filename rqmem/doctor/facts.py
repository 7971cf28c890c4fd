"""What the doctor reads of machine, memory and cgroups: parsing apart from reading, nothing judged.

Bytes everywhere. What cannot be read is None or "".
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from rqmem.errors import RqmemError
from rqmem.measure import cgroup_files, cgroup_places, linux, machine
from rqmem.measure.own_process import proc_shortcoming
from rqmem.measure.procfs import parse_kb
from rqmem.measure.startup_checks import Foreign, has_pidfd, look_at_foreign_fork, usage_of_idle_fork
from rqmem.values import dataclass

Surroundings = Literal["kubernetes", "container", "systemd", ""]

_OF_CONTAINERS = ("/.dockerenv", "/run/.containerenv")
_SYSTEMD = "/run/systemd/system"


@dataclass(frozen=True)
class MachineFacts:
    """The system, and what it lets us see of our own processes.

    Attributes:
        platform: as `sys.platform`.
        kernel: its release.
        python: its version.
        has_fork, has_pidfd: `os.fork` exists, `os.pidfd_open` works.
        proc_shortcoming: why ``/proc`` does not tell usage and children of this process; "" where it does.
        idle_bytes: what a fork of this process uses, read from outside of it.
        hidepid: that mount option of ``/proc``, where it concerns us.
        foreign: how a child was seen that this process may not examine; None: nobody looked.
    """

    platform: str
    kernel: str
    python: str
    has_fork: bool
    has_pidfd: bool
    proc_shortcoming: str
    idle_bytes: int | None
    hidepid: str
    foreign: Foreign | None = None


@dataclass(frozen=True)
class MemoryFacts:
    """What there is, and how the kernel and the C library deal with it.

    Attributes:
        total_bytes: the machine's.
        container_bytes: the smallest limit of the groups we are in; None: there is none.
        available_bytes: what is not in use now, of both.
        swap_bytes: of the machine.
        overcommit: ``vm.overcommit_memory``.
        huge_pages: ``always``, ``madvise`` or ``never``.
        can_trim: the C library gives freed memory back when asked (glibc).
    """

    total_bytes: int | None
    container_bytes: int | None
    available_bytes: int | None
    swap_bytes: int
    overcommit: int | None
    huge_pages: str
    can_trim: bool


@dataclass(frozen=True)
class KernelFacts:
    """Whether horses can have cgroups.

    Attributes:
        version: of the memory controller that is mounted.
        words: where groups can be made, and in which way; "": nowhere.
        reason: why nowhere.
        surroundings: in what this process runs.
        urgent: how the watching thread may go before others (`rqmem.measure.linux.urgent`).
    """

    version: Literal["v1", "v2", ""]
    words: str
    reason: str
    surroundings: Surroundings
    urgent: str = "real-time"


def parse_hidepid(mountinfo: str) -> str:
    """The option ``hidepid`` of ``/proc``, of the mount that covers the others; "" where it hides nothing."""
    found = ""
    for line in filter(None, mountinfo.split("\n")):
        mount, _, kind = line.partition(" - ")
        if mount.split(" ")[4] == "/proc" and kind.startswith("proc "):
            options = dict(option.partition("=")[::2] for option in kind.rpartition(" ")[2].split(","))
            found = options.get("hidepid", "")
    return "" if found in ("0", "off") else found


def parse_chosen(text: str) -> str:
    """``madvise`` of ``always [madvise] never``."""
    return text.partition("[")[2].partition("]")[0]


def surroundings(environ: Mapping[str, str], cgroups: str, there: Collection[str]) -> Surroundings:
    """From our environment, ``/proc/self/cgroup``, and which of the paths that tell exist."""
    if "KUBERNETES_SERVICE_HOST" in environ or "kubepods" in cgroups:
        return "kubernetes"
    if any(path in there for path in _OF_CONTAINERS) or "/docker/" in cgroups:
        return "container"
    return "systemd" if _SYSTEMD in there else ""


def read_machine() -> MachineFacts:
    shortcoming = proc_shortcoming()
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return MachineFacts(
        platform=sys.platform,
        kernel=platform.release(),
        python=platform.python_version(),
        has_fork=hasattr(os, "fork"),
        has_pidfd=has_pidfd(),
        proc_shortcoming=shortcoming,
        idle_bytes=None if shortcoming else _read_idle_bytes(),
        hidepid="" if root else parse_hidepid(_read("/proc/self/mountinfo")),
        foreign=None if shortcoming else look_at_foreign_fork(),
    )


def read_memory() -> MemoryFacts:
    sizes = {name: kb * 1024 for name, kb in parse_kb(_read("/proc/meminfo")).items()}
    overcommit = _read("/proc/sys/vm/overcommit_memory").strip()
    container_bytes = machine.container_limit_bytes() if sizes else None
    return MemoryFacts(
        total_bytes=sizes.get("MemTotal"),
        container_bytes=container_bytes,
        available_bytes=_available_bytes(sizes.get("MemAvailable"), container_bytes),
        swap_bytes=sizes.get("SwapTotal", 0),
        overcommit=int(overcommit) if overcommit else None,
        huge_pages=parse_chosen(_read("/sys/kernel/mm/transparent_hugepage/enabled")),
        can_trim=hasattr(ctypes.CDLL(None), "malloc_trim"),
    )


def read_kernel_layer(environ: Mapping[str, str]) -> KernelFacts:
    """Tries by making a group (see `rqmem.measure.cgroup_places`)."""
    own = cgroup_files.read_own()
    taken = cgroup_places.take()
    if isinstance(taken, cgroup_places.TakenPlace):
        cgroup_places.leave(taken)
    there = [path for path in (*_OF_CONTAINERS, _SYSTEMD) if Path(path).exists()]
    with linux.urgent() as how:
        pass
    return KernelFacts(
        version=own.version if own else "",
        words="" if isinstance(taken, str) else taken.words,
        reason=taken if isinstance(taken, str) else "",
        surroundings=surroundings(environ, _read("/proc/self/cgroup"), there),
        urgent=how,
    )


def _read_idle_bytes() -> int | None:
    try:
        return usage_of_idle_fork()
    except RqmemError:
        return None


def _available_bytes(of_machine: int | None, container_bytes: int | None) -> int | None:
    own = cgroup_files.read_own()
    if own is None or container_bytes is None or of_machine is None:
        return of_machine
    parts = cgroup_files.parse_parts(_read(str(own.path / "memory.stat")))
    return min(of_machine, container_bytes - parts.anon_bytes - parts.shmem_bytes)


def _read(path: str) -> str:
    return machine.read_text(Path(path)) or ""
