"""All settings of rqmem as one frozen, validated value; every default stands here and nowhere else.

`Config.from_environ` is called once, where a program starts; nothing deeper reads the environment.
A command's options are laid over it with `Config.with_options`. Promises: an unusable value raises
`ConfigError` naming the setting, the value and what would do; an unknown ``RQMEM_*`` name is an
error too, since a misspelt ceiling is no ceiling.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rqmem.errors import ConfigError


@dataclass(frozen=True)
class Config:
    """Settings of one worker or one application process.

    Attributes:
        memory_mb: the worker's ceiling, in MB; no job on it may use more. None: none was named.
        default_limit_mb: ceiling in MB where neither the job nor the worker names one.
        default_chunk_size: items per chunk at the start where the job names none.
        monitoring_enabled: whether jobs read and log their memory; the ceiling itself stays on.
        warning_threshold: fraction of the ceiling from which garbage is collected at checkpoints.
        timeout_seconds: the longest any job may run on this worker, in seconds. None: no cap.
        reserve_mb: what may be used above the ceiling while the job unwinds, before the kill.
        grace_seconds: how long unwinding may take before the kill.
        growth_bytes_per_second: the machine's fastest growth of memory, for the watch interval
            (8 GB/s covers huge pages and two cores here: facts/memory-enforcement.md, section 1).
        heartbeat_seconds: how often a worker says that it lives; twice that without: its runs are
            taken over.
        max_resumes: how often one job may be resumed before it fails.
        isolation: ``"warm"``: a horse runs many jobs; ``"fork"``: a horse for each job, as in RQ.
        max_jobs_per_horse: a warm horse is replaced after so many; 0: any number.
        preload: modules imported in the worker before any horse is forked.
    """

    memory_mb: float | None = None
    default_limit_mb: float = 256.0
    default_chunk_size: int = 100
    monitoring_enabled: bool = True
    warning_threshold: float = 0.8
    timeout_seconds: int | None = None
    reserve_mb: float = 32.0
    grace_seconds: float = 2.0
    growth_bytes_per_second: float = 8e9
    heartbeat_seconds: float = 5.0
    max_resumes: int = 12
    isolation: str = "warm"
    max_jobs_per_horse: int = 0
    preload: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """The configuration that ``environ`` describes; raises `ConfigError` for a bad value or name."""
        _refuse_unknown_names(environ)
        values: dict[str, Any] = {}
        for variable, (field, parse) in _VARIABLES.items():
            text = environ.get(variable, "").strip()
            if text:
                values[field] = parse(text, variable)
        return cls(**values)

    def with_options(self, **options: Any) -> Config:
        """This configuration with those options that are not None laid over it."""
        return dataclasses.replace(self, **{k: v for k, v in options.items() if v is not None})


def positive_mb(text: str, name: str) -> float:
    """``text`` as a positive number of MB; raises `ConfigError` naming ``name``."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={text!r}: give a number of MB greater than 0, for example 256")
    return value


def positive_seconds(text: str, name: str) -> float:
    """``text`` as a positive number of seconds; raises `ConfigError` naming ``name``."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={text!r}: give a number of seconds greater than 0, for example 5")
    return value


def positive_int(text: str, name: str) -> int:
    """``text`` as a whole number of at least 1; raises `ConfigError` naming ``name``."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"{name}={text!r}: give a whole number of at least 1")
    return value


def _fraction(text: str, name: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise ConfigError(f"{name}={text!r}: give a fraction of the ceiling between 0 and 1, for example 0.8")
    return value


def isolation(text: str, name: str) -> str:
    """``warm`` or ``fork``; raises `ConfigError` naming ``name``."""
    if text not in ("warm", "fork"):
        raise ConfigError(f"{name}={text!r}: give warm (a horse runs many jobs) or fork (a horse for each job)")
    return text


def _names(text: str, name: str) -> tuple[str, ...]:
    return tuple(part for part in text.replace(",", " ").split() if part)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _boolean(text: str, name: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{name}={text!r}: give true or false")


_VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "MEMORY_MONITORING_ENABLED": ("monitoring_enabled", _boolean),
    "MEMORY_WARNING_THRESHOLD": ("warning_threshold", _fraction),
    "MEMORY_DEFAULT_LIMIT_MB": ("default_limit_mb", positive_mb),
    "MEMORY_DEFAULT_CHUNK_SIZE": ("default_chunk_size", positive_int),
    "RQMEM_MEMORY": ("memory_mb", positive_mb),
    "RQMEM_TIMEOUT": ("timeout_seconds", positive_int),
    "RQMEM_ISOLATION": ("isolation", isolation),
    "RQMEM_MAX_JOBS_PER_HORSE": ("max_jobs_per_horse", positive_int),
    "RQMEM_PRELOAD": ("preload", _names),
    "RQMEM_HEARTBEAT": ("heartbeat_seconds", positive_seconds),
}

# Read elsewhere: the choice of Redis (connections), the mark of a job's processes (runtime.horse).
_OTHER_NAMES = ("RQMEM_REDIS_URL", "RQMEM_EXECUTION")


def _refuse_unknown_names(environ: Mapping[str, str]) -> None:
    known = [*_VARIABLES, *_OTHER_NAMES]
    for name in environ:
        if name.startswith("RQMEM_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"environment variable {name} is not known: {hint}")
