"""Importing what a person named by a dotted path, with the reason when that fails."""

from __future__ import annotations

import importlib
from typing import Any

from rqmem.errors import ConfigError
from rqmem.rq_names import import_attribute, resolve_serializer
from rqmem.tracebacks import where_raised


def imported(path: str, whose: str) -> Any:
    """What RQ's `import_attribute` finds.

    Args:
        path: as a person gave it: ``module.name``.
        whose: who names it, for the error: ``"--job-class"``.

    Raises:
        ConfigError: it cannot be imported, for whatever reason.
    """
    try:
        return import_attribute(path)
    except (Exception, SystemExit) as error:  # noqa: BLE001  somebody's code
        reason = why_not_importable(path) or str(error)
        raise ConfigError(f"{whose} {path!r} cannot be imported: {' '.join(reason.split())}") from None


def serializer(given: Any, whose: str) -> Any:
    """The serializer that somebody named, as RQ resolves it. Raises `ConfigError`."""
    try:
        return resolve_serializer(given)
    except (Exception, SystemExit) as error:  # noqa: BLE001  somebody's code
        reason = (isinstance(given, str) and why_not_importable(given)) or str(error)
        raise ConfigError(
            f"{whose} {given!r} cannot be used: {' '.join(reason.split())}; give pickle, json or a dotted path"
        ) from None


def why_not_importable(path: str) -> str:
    """The import error behind a path, which RQ's own message does not tell; "" if there is none."""
    parts = path.split(".")
    if not all(parts):
        return "give a path as in module.name"
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module or end == 1:
                return str(error)
            break
        except (Exception, SystemExit) as error:  # noqa: BLE001  somebody's code
            return f"importing {module} failed: {type(error).__name__}: {error}{where_raised(error)}"
    return ""
