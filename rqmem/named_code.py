"""Importing what a person named, with the reason and what to do in one line when that fails."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType
from typing import Any

from rqmem.errors import ConfigError, RqmemError
from rqmem.text import did_you_mean
from rqmem.tracebacks import where_raised


def module(name: str, whose: str = "") -> ModuleType:
    """The module of that name.

    Args:
        whose: what to call it in the error, for example ``--plugin shop.hooks``; by default its name.

    Raises:
        ConfigError: it cannot be imported, for whatever reason.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # somebody's code
        raise ConfigError(f"{whose or name} cannot be imported: {_reason(name, error)}") from error


def attribute(path: str, whose: str = "") -> Any:
    """What a dotted path names: ``module.Class``. Raises `ConfigError` as `module`."""
    found: Any
    found, names = split(path, whose)
    try:
        for name in names:
            found = getattr(found, name)
    except Exception as error:  # somebody's code
        raise ConfigError(f"{whose or path} cannot be imported: {error}") from error
    return found


def split(path: str, whose: str = "") -> tuple[ModuleType, list[str]]:
    """The longest module that a dotted path begins with, and the names after it. Raises `ConfigError` as `module`."""
    parts, whose = path.split("."), whose or path
    if len(parts) < 2 or not all(parts):
        raise ConfigError(f"{whose} cannot be imported: give a path as in module.name")
    found = module(parts[0], whose)
    for end in range(2, len(parts)):
        name = ".".join(parts[:end])
        try:
            found = module(name, whose)
        except ConfigError as error:
            if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == name:
                return found, parts[end - 1 :]
            raise
    return found, parts[-1:]


def serializer(given: Any, whose: str) -> Any:
    """The serializer that somebody named, as RQ resolves it. Raises `ConfigError`."""
    from rqmem.rq_names import resolve_serializer

    try:
        if isinstance(given, str) and "." in given:
            attribute(given, f"{whose} {given!r}")
        return resolve_serializer(given)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  somebody's code
        raise ConfigError(f"{whose} {given!r} cannot be used: {error}; give pickle, json or a dotted path") from None


def _reason(name: str, error: BaseException) -> str:
    missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if missing and f"{name}.".startswith(f"{missing}."):
        return f"there is no module {missing}: {_near(missing)}"
    kind = "" if isinstance(error, RqmemError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}{where_raised(error)}"


def _near(name: str) -> str:
    parent, dot, last = name.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", ()) if parent else None
    there = {each.name for each in pkgutil.iter_modules(folders)}
    near = did_you_mean(last, sorted(there), "start in the directory of the code, or give --path")
    return near.replace("did you mean ", f"did you mean {parent}{dot}")
