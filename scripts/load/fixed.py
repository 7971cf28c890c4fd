"""Chunks of the declared size for all jobs of a worker that preloads this: see growth in `scripts.load.rules`."""

from __future__ import annotations

from rqmem import MemoryAwareJob

MemoryAwareJob.adaptive = False
