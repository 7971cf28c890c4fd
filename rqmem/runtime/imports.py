"""Why a job's path cannot be imported, in one line; RQ's own error hides the reason."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from rq.timeouts import BaseTimeoutException

from rqmem.errors import JobNotImportable

if TYPE_CHECKING:
    from rq.job import Job


def check_importable(job: Job) -> None:
    """Import the job's function, which runs user code. Raises `JobNotImportable`."""
    path = job.func_name or ""
    try:
        job.func  # noqa: B018  RQ imports it here
    except BaseTimeoutException:
        raise  # the job's time limit, not the import
    except Exception as error:  # noqa: BLE001
        reason = _why_not_importable(path) or str(error)
        raise JobNotImportable(
            f"job path {path!r} cannot be imported here: {reason}; start the worker in the directory of "
            f"the code (now {os.getcwd()}) or give --path"  # noqa: PTH109
        ) from None


def _why_not_importable(path: str) -> str:
    """The import error behind a path, which RQ's own message does not tell."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module or end == 1:
                return str(error)
            break
        except Exception as error:  # noqa: BLE001
            return f"importing {module} failed: {type(error).__name__}: {error}"
    return ""
