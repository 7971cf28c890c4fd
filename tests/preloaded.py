"""Remembers which process imported it."""

import os
import sys

from rqmem import memory_aware as memory_aware

_importer = os.getpid()


def imported_by() -> tuple[int, int]:
    return _importer, os.getpid()


def parts_of_jobs() -> bool:
    """Whether what a job needs while it runs was there before the job; a plain function runs none of it."""
    return "rqmem.job.running" in sys.modules
