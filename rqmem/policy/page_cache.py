"""What a cgroup's charge says of a job, and what limit the group gets: page cache gives room, nothing else does. Pure.

The kernel counts everything against one limit. Page cache costs a job nothing, but a job that works on large files
would be slowed threefold at its limit, so the limit goes up with the cache. Nobody but page cache may use that room:
the watcher judges the rest of the charge by the limit without it. Bytes everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

from rqmem.units import MB
from rqmem.values import dataclass

MUCH_CACHE_BYTES = 16 * MB
_STEP_BYTES = 8 * MB  # taken back at once, at least


@dataclass(frozen=True)
class Charge:
    """What is charged to a group.

    Attributes:
        file_bytes: page cache that the kernel can drop (after it has written it, where need be); shared memory, tmpfs
            and what is locked into memory are not in it.
        anon_bytes, shmem_bytes: of processes; of shared memory, tmpfs and memfd.
        perhaps_bytes: kernel memory; some of it can be dropped (cached inodes), some cannot (sockets).
    """

    total_bytes: int
    file_bytes: int
    anon_bytes: int
    shmem_bytes: int
    perhaps_bytes: int

    @property
    def held_bytes(self) -> int:
        """The job's own: all but page cache."""
        return self.total_bytes - self.file_bytes

    @property
    def kernel_bytes(self) -> int:
        """Sockets, pipes, slab, page tables, stacks."""
        return max(0, self.held_bytes - self.anon_bytes - self.shmem_bytes)


class Judgement(NamedTuple):
    """What to do about a charge.

    Attributes:
        breach: the job holds more than it may, for sure.
        doubt: it may be so. Lower the limit below the charge while the job is stopped: only the kernel knows what it
            can drop.
        limit_bytes: what the group's limit should be.
    """

    breach: bool
    doubt: bool
    limit_bytes: int


def judge(charge: Charge, base_bytes: int, limit_bytes: int, slack_bytes: int) -> Judgement:
    """What to do about a charge.

    Args:
        base_bytes: the most that a job may hold: its ceiling and the reserve.
        slack_bytes: by how much the parts of a charge may lag behind its total.

    Promises (tested): no breach while the job holds at most ``base_bytes``; always one when it holds more that the
    kernel cannot drop; the limit is never below ``base_bytes``, and above it only by page cache that is there.
    """
    over = charge.held_bytes - base_bytes - slack_bytes
    if over > charge.perhaps_bytes:
        return Judgement(True, False, base_bytes)
    if over > 0:
        less = max(2 * over, _STEP_BYTES)
        return Judgement(False, True, max(base_bytes, min(limit_bytes, charge.total_bytes) - less))
    room = limit_bytes - base_bytes
    if charge.file_bytes < MUCH_CACHE_BYTES:
        return Judgement(False, False, base_bytes)
    if 1.5 * charge.file_bytes <= room <= 2.5 * charge.file_bytes:  # setting it costs 0.1 ms
        return Judgement(False, False, limit_bytes)
    return Judgement(False, False, base_bytes + 2 * charge.file_bytes)
