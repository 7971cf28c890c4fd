"""What a job's horse takes before it has done anything: a job that imports what another one imports, and no more."""

from __future__ import annotations

import os
from importlib import import_module

from rqmem.measure import procfs
from rqmem.units import MB


def usage_after_imports(modules: list[str]) -> float:
    """Of this process, in MB, as ceilings count it."""
    for name in modules:
        import_module(name)
    rollup = procfs.read_usage(os.getpid())
    assert rollup is not None
    return rollup.usage_bytes / MB
