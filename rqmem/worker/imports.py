"""Importing modules: those of ``--preload`` before horses are forked, and the code of a job in its horse.

A fork takes no threads along, but all that they hold: locks, and what OpenMP knows of its pool. A job that uses it then
waits for ever. So the threads that an import leaves are counted (`rqmem.measure.left_threads`).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable

from rqmem import named_code
from rqmem.errors import ConfigError, JobNotImportable
from rqmem.measure import procfs
from rqmem.measure.left_threads import imported, warning
from rqmem.rq_names import BaseTimeoutException, Job

_log = logging.getLogger("rqmem.worker")


def preload(modules: Iterable[str], openmp: str) -> None:
    """Import these now, so that horses share their pages. ``openmp``: ``"refuse"`` a pool of OpenMP, or ``"end"`` it.

    Raises `ConfigError` for a module that cannot be imported, or leaves a pool that is to be refused.
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


def check_importable(job: Job) -> int:
    """Import the job's function, which runs user code; returns the bytes that took. Raises `JobNotImportable`."""
    path = job.func_name or ""
    is_new = path.removesuffix(".run").rpartition(".")[0] not in sys.modules
    held_bytes = procfs.own_held_bytes() if is_new else 0
    try:
        job.func  # noqa: B018  RQ imports it here
    except BaseTimeoutException:
        raise  # the job's time limit, not the import
    except (Exception, SystemExit) as error:  # noqa: BLE001  somebody's code
        whose = f"job path {path!r}"
        try:
            if "." in path:
                named_code.attribute(path, whose)
        except ConfigError as why:
            raise JobNotImportable(f"{why} (the worker was started in {os.getcwd()})") from None  # noqa: PTH109
        raise JobNotImportable(f"{whose} cannot be imported: {error}") from None
    if not is_new:
        return 0
    preload_jobs()  # its module may be the first that has jobs of rqmem
    return max(0, procfs.own_held_bytes() - held_bytes)
