"""What job types declare, and which of these values apply under a configuration, for tables of job types.

Job types are found in modules or by their paths. That imports them, and runs nothing else. Redis is not asked.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from rqmem import named_code
from rqmem.config.load import Origin, Settings
from rqmem.config.settings import JobSettings
from rqmem.errors import ConfigError
from rqmem.job.base import MemoryAwareJob
from rqmem.job.child_enqueuer import ITEMS
from rqmem.job.functions import DECLARED, ON_BREACH_OF_FUNCTION
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.values import dataclass, field


@dataclass(frozen=True)
class Declared:
    """A job type as its code declares it.

    Attributes:
        limits: a field that is None is not declared.
        about: the first line of its docstring.
        splits: its ``handle`` takes ``items=None``, so it may split into jobs of its own type.
    """

    job: str
    limits: JobSettings = field(default_factory=JobSettings)
    on_breach: str = "fail"
    queue: str = ""
    about: str = ""
    splits: bool = False


@dataclass(frozen=True)
class Applied:
    """What applies to a job type, what the config file says, and for each field where its value came from."""

    limits: JobSettings
    said: JobSettings
    origins: dict[str, Origin]


def find(module: str) -> list[Declared]:
    """The job types that a module, or a package with all that is in it, defines, by path. Raises `ConfigError`."""
    found = {each.job: each for part in _parts(module) for each in _defined_in(part)}
    if not found:
        raise ConfigError(f"{module} defines no MemoryAwareJob and no @memory_aware function: name where jobs are")
    return [found[job] for job in sorted(found)]


def of_path(path: str) -> Declared:
    """The job type with that dotted path; a plain function declares nothing. Raises `ConfigError`."""
    return _declared(path, named_code.attribute(path))


def applied(declared: Declared, settings: Settings) -> Applied:
    """The value of the config file for the job type, else of its code, else of the worker, else the default."""
    config = settings.config
    said = config.jobs.get(declared.job, JobSettings())
    values = {**declared.limits.given, **said.given}
    origins = dict.fromkeys(declared.limits.given, Origin("job class", declared.job))
    origins |= dict.fromkeys(said.given, Origin("config file", settings.file or ""))
    wanted_mb = values.get("memory_limit_mb")
    limit_mb = effective_limit_mb(wanted_mb, config.memory_mb, config.default_limit_mb)
    if limit_mb != wanted_mb:
        origins["memory_limit_mb"] = settings.origin("default_limit_mb" if config.memory_mb is None else "memory_mb")
    for name, default in (("chunk_size", "default_chunk_size"), ("items_per_child", "max_items_per_child")):
        if name not in values:
            values[name], origins[name] = getattr(config, default), settings.origin(default)
    return Applied(JobSettings(**{**values, "memory_limit_mb": limit_mb}), said, origins)


def _parts(module: str) -> Iterator[ModuleType]:
    """The module, and where it is a package all modules in it."""
    root = named_code.module(module)
    yield root
    for part in pkgutil.walk_packages(getattr(root, "__path__", []), f"{module}."):
        if not part.name.endswith(".__main__"):
            yield named_code.module(part.name)


def _defined_in(module: ModuleType) -> Iterator[Declared]:
    for name, value in vars(module).items():
        ours = (inspect.isclass(value) and issubclass(value, MemoryAwareJob)) or hasattr(value, DECLARED)
        if ours and getattr(value, "__module__", "") == module.__name__ and not name.startswith("_"):
            yield _declared(f"{module.__name__}.{value.__qualname__}", value)


def _declared(path: str, found: Any) -> Declared:
    if inspect.isclass(found) and issubclass(found, MemoryAwareJob):
        limits = JobSettings(
            found.memory_limit_mb, found.chunk_size, found.bytes_per_item, found.split_above_items,
            found.items_per_child,
        )  # fmt: skip
        items = inspect.signature(found.handle).parameters.get(ITEMS)
        splits = items is not None and items.default is None  # a class for children only has no default
        return Declared(path, limits, found.on_breach, found.queue, _first_line(found), splits)
    if not callable(found):
        raise ConfigError(f"{path} is no job: {type(found).__name__}")
    on_breach = getattr(found, ON_BREACH_OF_FUNCTION, "fail")
    return Declared(path, JobSettings(getattr(found, DECLARED, None)), on_breach, about=_first_line(found))


def _first_line(found: Any) -> str:
    return (inspect.getdoc(found) or "").partition("\n")[0]
