"""Plugins that come with rqmem, one file for each library. Each is loaded where that library has been imported.

A warm horse runs many jobs in one process. What a library keeps there between two jobs (connections, sessions, what a
job has activated) is put back as it would be between two requests of a web server.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from typing import Any

LIBRARIES = {
    "django": "django.db",
    "sqlalchemy": "sqlalchemy",
    "sentry": "sentry_sdk",
    "opentelemetry": "opentelemetry.sdk",
}
"""Name of an integration -> the module whose import makes it active."""

_waiting = dict(LIBRARIES)  # looked at several times a job
_loaded: list[str] = []
_log = logging.getLogger("rqmem.hooks")


def load_imported() -> list[str]:
    """Load those whose library this process has imported; returns the names of all that are loaded.

    One that cannot be used with the installed version of its library is logged and left out.
    """
    for name in [name for name, library in _waiting.items() if library in sys.modules]:
        del _waiting[name]
        try:
            importlib.import_module(f"{__name__}.{name}")
            _loaded.append(name)
        except Exception as error:  # noqa: BLE001  any version may be installed
            _log.warning("integration %s does not fit what is installed: %s: %s", name, type(error).__name__, error)
    return _loaded


def installed() -> list[str]:
    """Names of those whose library can be imported here."""
    found = []
    for name, library in LIBRARIES.items():
        try:
            found += [name] if importlib.util.find_spec(library) is not None else []
        except ModuleNotFoundError:  # what it is a part of
            pass
    return found


def owns(hook: Callable[..., Any]) -> bool:
    return hook.__module__.startswith(f"{__name__}.")
