"""Importing a job's code, with the reason when it fails."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rqmem.config.named_code import why_not_importable
from rqmem.errors import JobNotImportable
from rqmem.measure import procfs
from rqmem.rq_names import BaseTimeoutException
from rqmem.worker.preloading import preload_jobs

if TYPE_CHECKING:
    from rqmem.rq_names import Job


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
        reason = why_not_importable(path) or str(error)
        raise JobNotImportable(
            f"job path {path!r} cannot be imported here: {reason}; start the worker in the directory of "
            f"the code (now {os.getcwd()}) or give --path"  # noqa: PTH109
        ) from None
    if not is_new:
        return 0
    preload_jobs()  # its module may be the first that has jobs of rqmem
    return max(0, procfs.own_held_bytes() - held_bytes)
