"""Importing user code, before the fork (preload) and for a job; with the reason when it fails."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rq.exceptions import StopRequested
from rq.timeouts import BaseTimeoutException

from rqmem.errors import ConfigError, JobNotImportable

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


def preload(modules: Iterable[str]) -> None:
    """Import these now, so that horses share their pages. Raises `ConfigError`."""
    for module in modules:
        try:
            importlib.import_module(module)
        except StopRequested:
            raise
        except Exception as error:
            raise ConfigError(
                f"--preload {module} cannot be imported: {type(error).__name__}: {error}; start the worker in "
                f"the directory of the code or give --path"
            ) from error


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
