"""A ring of samples in one Redis string, with a slot for each step of time. Pure.

A slot is overwritten when the ring comes round again. It contains its time, so old samples are recognised. The size is
fixed, and a write is one SETRANGE.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rqmem.values import dataclass

_SLOT = struct.Struct("<Ifff")


@dataclass(frozen=True)
class Sample:
    """The highest readings within one step.

    Attributes:
        at: when the step began, epoch seconds.
        usage_mb: of the horse and everything it started.
        limit_mb: the ceiling of the job that ran; 0 if none ran.
        worker_mb: of the worker process itself.
    """

    at: int
    usage_mb: float
    limit_mb: float
    worker_mb: float


@dataclass(frozen=True)
class Ring:
    """``slots`` steps of ``step_seconds`` each."""

    step_seconds: int
    slots: int

    @property
    def seconds(self) -> int:
        """How far back the ring goes."""
        return self.step_seconds * self.slots

    def begin(self, now: float) -> int:
        """The beginning of the step that contains ``now``."""
        return int(now) // self.step_seconds * self.step_seconds

    def offset(self, at: int) -> int:
        """The offset in bytes of the slot for the step that began at ``at``."""
        return at // self.step_seconds % self.slots * _SLOT.size

    def pack(self, sample: Sample) -> bytes:
        return _SLOT.pack(sample.at, sample.usage_mb, sample.limit_mb, sample.worker_mb)

    def unpack(self, raw: bytes, now: float) -> Iterator[Sample]:
        """The samples in ``raw`` that are not too old for the ring, oldest first."""
        whole = raw[: len(raw) // _SLOT.size * _SLOT.size]
        oldest = self.begin(now) - self.seconds
        found = [Sample(*each) for each in _SLOT.iter_unpack(whole)]
        yield from sorted((each for each in found if oldest < each.at <= now), key=lambda each: each.at)


RINGS = (Ring(1, 900), Ring(60, 1440), Ring(3600, 720))
"""A second for 15 minutes, a minute for a day, an hour for 30 days."""


def merged(before: Sample | None, sample: Sample) -> Sample:
    """One sample of two of the same step; else the later one."""
    if before is None or before.at != sample.at:
        return sample
    fuller = max(before, sample, key=lambda each: each.usage_mb)
    return Sample(sample.at, fuller.usage_mb, fuller.limit_mb, max(before.worker_mb, sample.worker_mb))
