"""The files of memory cgroups, v1 and v2: parsing apart from reading, nothing decided. Bytes everywhere.

Formats: cgroups(7), proc_pid_mountinfo(5), ``cgroup-v1/memory.rst`` and ``cgroup-v2.rst`` of the kernel.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from rqmem.measure.kept_files import read_text
from rqmem.values import dataclass

Version = Literal["v1", "v2"]

LEAF_SUFFIX = "-worker"  # v2: of the group where a worker and others wait, since inner groups hold no processes
_LEAF = re.compile(rf"rqmem-\d+-\d+{LEAF_SUFFIX}")
KILLS = {"v1": "memory.oom_control", "v2": "memory.events"}


@dataclass(frozen=True)
class Own:
    """The memory group this process is in, and the highest of its ancestors that can be seen from here."""

    version: Version
    path: Path
    top: Path

    @property
    def lineage(self) -> list[Path]:
        """The group and its ancestors, as far as they can be seen."""
        return [path for path in (self.path, *self.path.parents) if path.is_relative_to(self.top)]


@dataclass(frozen=True)
class Parts:
    """What a group's charge consists of, in bytes, sub-groups included.

    Attributes:
        anon_bytes, shmem_bytes: of processes; of shared memory, tmpfs and memfd.
        file_bytes: page cache that can be dropped. Not what is locked into memory, and not pages that a file has lost
            and a pipe still holds.
        slab_bytes: kernel memory that may be dropped; 0 in v1, which does not tell.
    """

    anon_bytes: int
    shmem_bytes: int
    file_bytes: int
    slab_bytes: int


def parse_own(cgroup: str, mountinfo: str) -> Own | None:
    """`Own` from ``/proc/self/cgroup`` and ``/proc/self/mountinfo``; None where no hierarchy is mounted.

    A container may see only a part of a hierarchy: then the mount's root field says which.
    """
    groups: dict[str, str] = {}
    for line in filter(None, cgroup.split("\n")):
        _, controllers, group = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), group))
    mounts = [line.partition(" - ") for line in mountinfo.split("\n")]
    versions: tuple[tuple[Version, str], ...] = (("v1", "memory"), ("v2", ""))
    for version, controller in versions:
        for mount, _, kind in mounts:
            if controller in groups and _is_mount_of(version, kind):
                root, top = map(_unescape, mount.split(" ")[3:5])
                path = _beneath(top, root, groups[controller])
                if path is not None:
                    return Own(version, path, Path(top))
    return None


def _is_mount_of(version: Version, kind: str) -> bool:
    """Whether a mount's type, source and options are those of the memory hierarchy."""
    if version == "v2":
        return kind.startswith("cgroup2 ")
    return kind.startswith("cgroup ") and "memory" in kind.rpartition(" ")[2].split(",")


def _unescape(field: str) -> str:
    """A path of ``mountinfo``, where blanks and backslashes are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _beneath(top: str, root: str, group: str) -> Path | None:
    """Where ``group`` is seen when ``root`` is mounted at ``top``; None when it is not below it."""
    try:
        inner = PurePosixPath(group).relative_to(root)
    except ValueError:
        return None
    return None if ".." in inner.parts else Path(top, inner)


def parse_counters(text: str) -> dict[str, int]:
    """A flat keyed file: ``memory.stat``, ``memory.events``, ``memory.oom_control``, ``/proc/vmstat``."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def parse_parts(stat: str) -> Parts:
    """`Parts` from ``memory.stat``. In v1 ``rss`` is anonymous memory only, and ``total_`` has the sub-groups."""
    counters = parse_counters(stat)

    def first(*names: str) -> int:
        return next((counters[name] for name in names if name in counters), 0)

    anon, shmem = first("total_rss", "rss", "anon"), first("total_shmem", "shmem")
    evictable = {
        kind: sum(first(f"total_{state}_{kind}", f"{state}_{kind}") for state in ("active", "inactive"))
        for kind in ("anon", "file")  # shared memory is among the first
    }
    locked_file = first("total_unevictable", "unevictable") - max(0, anon + shmem - evictable["anon"])
    in_files = first("total_cache", "cache", "file") - shmem - max(0, locked_file)
    return Parts(
        anon_bytes=anon,
        shmem_bytes=shmem,
        file_bytes=max(0, min(evictable["file"], in_files)),
        slab_bytes=first("slab_reclaimable"),
    )


def parse_limit(text: str) -> int | None:
    """A limit in bytes; None for v2's ``max``. v1 writes a number near 2**63 for none."""
    return None if text.strip() == "max" else int(text)


def read_actual() -> Own | None:
    """The group that we are in, be it a leaf that a worker made; None where no hierarchy is mounted or shown."""
    try:
        return parse_own(read_text("/proc/self/cgroup"), read_text("/proc/self/mountinfo"))
    except OSError:
        return None


def read_own() -> Own | None:
    """Our own group; where a worker has moved us to a leaf of it, it is our own all the same."""
    own = read_actual()
    if own is not None and _LEAF.fullmatch(own.path.name) and own.path != own.top:
        return replace(own, path=own.path.parent)
    return own


def read_kernel_kills(version: Version, group: Path) -> int | None:
    """Processes the kernel killed for memory in ``group``; None where it does not say (v1 before 4.13)."""
    try:
        return parse_counters((group / KILLS[version]).read_text()).get("oom_kill")
    except OSError:
        return None


def read_local_kernel_kills(version: Version, group: Path) -> int | None:
    """As `read_kernel_kills`, without sub-groups, which may be those of other workers' horses."""
    if version == "v2" and (group / "memory.events.local").exists():  # kernel 5.2
        return parse_counters((group / "memory.events.local").read_text()).get("oom_kill")
    return read_kernel_kills(version, group)  # v1's has none of sub-groups
