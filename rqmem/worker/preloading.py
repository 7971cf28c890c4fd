"""Importing modules before horses are forked, and what threads that leaves in the process they are forked from.

A fork takes none of these threads along, but all that they hold: locks, and what OpenMP knows of its pool. A job that
uses it then waits for ever. So threads are counted around each import (`rqmem.measure.left_threads`).
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable

from rqmem.errors import ConfigError
from rqmem.measure.left_threads import imported, warning

_log = logging.getLogger("rqmem.worker")


def preload(modules: Iterable[str], openmp: str) -> None:
    """Import these now, so that horses share their pages. Threads that one leaves running are a warning.

    Args:
        openmp: what to do about a pool of OpenMP: ``"refuse"``, or ``"end"`` it.

    Raises:
        ConfigError: a module cannot be imported, or leaves an OpenMP pool that is to be refused.
    """
    for each in imported(modules):
        if each.openmp_threads and openmp == "refuse":
            raise ConfigError(
                f"--preload {each.module} has used OpenMP and left a pool of {each.openmp_threads} threads: horses "
                f"that are forked now would hang. Compute nothing while the module is imported, or give "
                f"--preload-openmp end (RQMEM_PRELOAD_OPENMP=end): then the pool is ended before horses are forked"
            )
        if each.openmp_threads:
            _log.info("--preload %s: ended its OpenMP pool of %d threads", each.module, each.openmp_threads)
        if each.other_threads:
            _log.warning("--preload %s", warning(each))


def preload_jobs() -> None:
    """Import what jobs need while they run, if this process has imported job classes or decorated functions.

    By name, since workers know nothing of jobs.
    """
    if "rqmem.job.functions" in sys.modules:
        importlib.import_module("rqmem.job.running")
