"""Plugins that come with rqmem, one file for each library. Each is loaded where that library has been imported.

A warm horse runs many jobs in one process. What a library keeps there between two jobs (connections, sessions, what a
job has activated) is put back as it would be between two requests of a web server.
"""

from __future__ import annotations

import importlib.util
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

_loaded: set[str] = set()


def load_imported() -> list[str]:
    """Load those whose library this process has imported; returns the names of all that are loaded."""
    for name, library in LIBRARIES.items():
        if name not in _loaded and library in sys.modules:
            _loaded.add(name)
            importlib.import_module(f"{__name__}.{name}")
    return sorted(_loaded)


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
    """Whether it is a hook of an integration."""
    return hook.__module__.startswith(f"{__name__}.")
