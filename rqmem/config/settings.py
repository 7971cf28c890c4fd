"""All settings of rqmem as one frozen, validated value; every default stands here and nowhere else.

Programs call `rqmem.config.load.load` once, where they start: that lays command line, environment and config file
together; nothing deeper reads either. Promises: an unusable value raises `ConfigError` naming the setting, the value
and what would do. An unknown ``RQMEM_*`` name that is nearly one of ours is an error too, since a misspelt ceiling is
no ceiling; what Kubernetes and Docker set for a Service called rqmem is passed over, all else is one warning.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from rqmem.errors import ConfigError
from rqmem.units import MB

_log = logging.getLogger("rqmem.config.settings")
_GROWTH_BYTES_PER_SECOND = 8e9  # facts/memory-enforcement.md, section 1


@dataclass(frozen=True)
class JobSettings:
    """What the config file says of one job type, above what its class declares. None: it says nothing.

    Attributes:
        memory_limit_mb: its ceiling, in MB; never more than the worker's.
        chunk_size: items per chunk at the start.
        bytes_per_item: what an item costs, in bytes, for ``should_split_job``.
        split_above_items: it splits above so many items, whatever they weigh.
        items_per_child: items of a child.
    """

    memory_limit_mb: float | None = None
    chunk_size: int | None = None
    bytes_per_item: float | None = None
    split_above_items: int | None = None
    items_per_child: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What it says something of, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Config:
    """Settings of one worker or one application process.

    Attributes:
        memory_mb: the worker's ceiling, in MB; no job on it may use more. None: none was named.
        default_limit_mb: ceiling in MB where neither the job nor the worker names one.
        default_chunk_size: items per chunk at the start where the job names none.
        monitoring_enabled: whether jobs read and log their memory; the ceiling itself stays on.
        auto_split_enabled: whether ``should_split_job`` may say yes.
        max_items_per_child: items of a child where the job names none; fewer where so many would not fit.
        warning_threshold: fraction of the ceiling above which the usage alert is raised, and garbage is
            collected at checkpoints.
        timeout_seconds: the longest any job may run on this worker, in seconds. None: no cap.
        reserve_mb: what may be used above the ceiling while the job unwinds, before the kill.
        grace_seconds: how long unwinding may take before the kill.
        growth_bytes_per_second: the machine's fastest growth of memory, for the watch interval.
            None: measured when the worker starts.
        sample_step_mb: growth of a job in MB between two samples of its stack.
        heartbeat_seconds: how often a worker says that it lives; twice that without: its runs are
            taken over.
        max_resumes: the budget of resumes of one job: each costs 1, or 2 where no chunk was finished.
        journal_enabled: whether what happens is remembered in Redis (samples, runs, stories, alerts).
        alert_growth_mb_per_minute: growth in MB within a minute that raises an alert.
        alert_collections: more collections of garbage than so many in one run raise an alert.
        alert_cooldown_seconds: an alert of the same rule and job type is not told again for so long.
        alert_urls: where alerts are sent, in Apprise's form. Secrets: never shown.
        alert_urls_file: a file of more of them, one a line.
        isolation: ``"warm"``: a horse runs many jobs; ``"fork"``: a horse for each job, as in RQ.
        max_jobs_per_horse: a warm horse is replaced after so many; 0: any number.
        preload: modules imported in the worker before any horse is forked.
        preload_openmp: what to do about an OpenMP pool that one of them leaves: ``"refuse"``, or ``"end"`` it.
        plugins: modules of hooks (`rqmem.hooks`), imported likewise.
        integrations: whether the plugins that come with rqmem are used (`rqmem.integrations`).
        cgroup: the kernel's layer: ``"auto"``: where it can be had; ``"off"``; ``"require"``.
        worker_memory_mb: the worker process's own ceiling, in MB. None: 512, or twice what it uses when it
            starts, whichever is more.
        on_worker_limit: then the worker, between two jobs, restarts itself in place (``"restart"``) or ends
            with exit code 12 (``"exit"``).
        profile: ``"memray"``: captures of runs are made, and kept for breaches and the worst peaks; ``"off"``.
        profile_job: only of these job types, dotted paths; empty: of all.
        profile_dir: where captures and snapshots go; relative to the current directory.
        auto: whether chunk sizes that the journal recommends are where adaptive jobs begin.
        jobs: job type -> what the config file says of it.
    """

    memory_mb: float | None = None
    default_limit_mb: float = 256.0
    default_chunk_size: int = 100
    monitoring_enabled: bool = True
    auto_split_enabled: bool = True
    max_items_per_child: int = 500
    warning_threshold: float = 0.8
    timeout_seconds: int | None = None
    reserve_mb: float = 32.0
    grace_seconds: float = 2.0
    growth_bytes_per_second: float | None = None
    sample_step_mb: float = 16.0
    heartbeat_seconds: float = 5.0
    max_resumes: int = 30
    journal_enabled: bool = True
    alert_growth_mb_per_minute: float = 50.0
    alert_collections: int = 100
    alert_cooldown_seconds: float = 300.0
    alert_urls: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    alert_urls_file: str | None = None
    isolation: str = "warm"
    max_jobs_per_horse: int = 0
    preload: tuple[str, ...] = ()
    preload_openmp: str = "refuse"
    plugins: tuple[str, ...] = ()
    integrations: bool = True
    cgroup: str = "auto"
    worker_memory_mb: float | None = None
    on_worker_limit: str = "restart"
    profile: str = "off"
    profile_job: tuple[str, ...] = ()
    profile_dir: str = ".rqmem/profiles"
    auto: bool = False
    jobs: Mapping[str, JobSettings] = dataclasses.field(default_factory=dict)

    @property
    def growth_rate(self) -> float:
        """Bytes per second: what was given or measured, else what covers huge pages and two cores (8 GB/s)."""
        return self.growth_bytes_per_second or _GROWTH_BYTES_PER_SECOND

    def of_job(self, job: str) -> dict[str, Any]:
        """What the config file says of a job type, by the names of `JobSettings`; above what its class declares."""
        return self.jobs[job].given if job in self.jobs else {}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """The configuration that ``environ`` alone describes; raises `ConfigError` for a bad value or name."""
        _check_names(environ)
        values: dict[str, Any] = {}
        for variable, (field, parse) in VARIABLES.items():
            text = environ.get(variable, "").strip()
            if text:
                values[field] = parse(text, variable)
        return cls(**values)


def positive_mb(text: str, name: str) -> float:
    """``text`` as a positive number of MB; raises `ConfigError` naming ``name``."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={text!r}: give a number of MB greater than 0, for example 256")
    return value


def reserve_mb(text: str, name: str) -> float:
    """``text`` as a number of MB that is not negative; raises `ConfigError` naming ``name``."""
    value = _number(text)
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name}={text!r}: give a number of MB of at least 0, for example 32")
    return value


def _mb_per_second(text: str, name: str) -> float:
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={text!r}: give a number of MB per second greater than 0, for example 8000")
    return value * MB


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


def positive_bytes(text: str, name: str) -> float:
    """``text`` as a positive number of bytes; raises `ConfigError` naming ``name``."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={text!r}: give a number of bytes greater than 0, for example 2048")
    return value


def _fraction(text: str, name: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise ConfigError(f"{name}={text!r}: give a fraction of the ceiling between 0 and 1, for example 0.8")
    return value


def one_of(**choices: str) -> Callable[[str, str], str]:
    """A parser for a setting with these values, each with its meaning."""

    def parse(text: str, name: str) -> str:
        if text not in choices:
            meanings = " or ".join(f"{choice} ({meaning})" for choice, meaning in choices.items())
            raise ConfigError(f"{name}={text!r}: give {meanings}")
        return text

    return parse


isolation = one_of(warm="a horse runs many jobs", fork="a horse for each job")
cgroup = one_of(auto="use one where it can be had", off="never", require="do not start without one")
profile = one_of(memray="capture runs", off="do not")
preload_openmp = one_of(refuse="do not start", end="end the pool before horses are forked")
on_worker_limit = one_of(restart="restart in place", exit="end with exit code 12")


def _names(text: str, name: str) -> tuple[str, ...]:
    return tuple(part for part in text.replace(",", " ").split() if part)


def _words(text: str, name: str) -> tuple[str, ...]:
    return tuple(text.split())


def _path(text: str, name: str) -> str:
    return text


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


VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "MEMORY_MONITORING_ENABLED": ("monitoring_enabled", _boolean),
    "MEMORY_WARNING_THRESHOLD": ("warning_threshold", _fraction),
    "MEMORY_DEFAULT_LIMIT_MB": ("default_limit_mb", positive_mb),
    "MEMORY_DEFAULT_CHUNK_SIZE": ("default_chunk_size", positive_int),
    "JOB_AUTO_SPLIT_ENABLED": ("auto_split_enabled", _boolean),
    "JOB_MAX_ITEMS_PER_CHILD": ("max_items_per_child", positive_int),
    "RQMEM_MEMORY": ("memory_mb", positive_mb),
    "RQMEM_TIMEOUT": ("timeout_seconds", positive_int),
    "RQMEM_ISOLATION": ("isolation", isolation),
    "RQMEM_MAX_JOBS_PER_HORSE": ("max_jobs_per_horse", positive_int),
    "RQMEM_PRELOAD": ("preload", _names),
    "RQMEM_PRELOAD_OPENMP": ("preload_openmp", preload_openmp),
    "RQMEM_PLUGINS": ("plugins", _names),
    "RQMEM_INTEGRATIONS": ("integrations", _boolean),
    "RQMEM_RESERVE": ("reserve_mb", reserve_mb),
    "RQMEM_CGROUP": ("cgroup", cgroup),
    "RQMEM_WORKER_MEMORY": ("worker_memory_mb", positive_mb),
    "RQMEM_ON_WORKER_LIMIT": ("on_worker_limit", on_worker_limit),
    "RQMEM_PROFILE": ("profile", profile),
    "RQMEM_PROFILE_JOB": ("profile_job", _names),
    "RQMEM_PROFILE_DIR": ("profile_dir", _path),
    "RQMEM_AUTO": ("auto", _boolean),
    "RQMEM_GROWTH_RATE": ("growth_bytes_per_second", _mb_per_second),
    "RQMEM_SAMPLE_STEP": ("sample_step_mb", positive_mb),
    "RQMEM_HEARTBEAT": ("heartbeat_seconds", positive_seconds),
    "RQMEM_MAX_RESUMES": ("max_resumes", positive_int),
    "RQMEM_JOURNAL": ("journal_enabled", _boolean),
    "RQMEM_ALERT_GROWTH": ("alert_growth_mb_per_minute", positive_mb),
    "RQMEM_ALERT_COLLECTIONS": ("alert_collections", positive_int),
    "RQMEM_ALERT_COOLDOWN": ("alert_cooldown_seconds", positive_seconds),
    "RQMEM_ALERT_URLS": ("alert_urls", _words),
    "RQMEM_ALERT_URLS_FILE": ("alert_urls_file", _path),
}
"""Variable -> the field of `Config` that it sets, and how its text is read."""

JOB_SETTINGS: dict[str, Callable[[str, str], Any]] = {
    "memory_limit_mb": positive_mb,
    "chunk_size": positive_int,
    "bytes_per_item": positive_bytes,
    "split_above_items": positive_int,
    "items_per_child": positive_int,
}
"""Field of `JobSettings` -> how its text is read."""

# Read elsewhere: the config file (settings), the choice of Redis (connections), the mark of a job's processes
# (runtime.horse), what a worker that restarted itself was before (runtime.restart).
_OTHER_NAMES = ("RQMEM_CONFIG", "RQMEM_REDIS_URL", "RQMEM_EXECUTION", "RQMEM_RESTARTED")


# What Kubernetes sets for each Service and Docker for each link, here for those whose names begin with "rqmem".
_OF_SERVICES = re.compile(
    r"RQMEM(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))?|ENV_\w+)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://\S+")
_NEAR = 0.75  # alike by `difflib`, without what all names begin with


def _check_names(environ: Mapping[str, str]) -> None:
    """`ConfigError` for a name that is nearly one of ours; a warning, once, for others that begin as ours do."""
    known = {name.removeprefix("RQMEM_"): name for name in (*VARIABLES, *_OTHER_NAMES) if name.startswith("RQMEM_")}
    strange = []
    for name, value in environ.items():
        rest = name.removeprefix("RQMEM_")
        if rest == name or rest in known or _is_of_a_service(name, value):
            continue
        near = difflib.get_close_matches(rest, known, n=1, cutoff=_NEAR)
        near += [each for each in known if rest.startswith(f"{each}_") or (len(rest) > 2 and each.startswith(rest))]
        if near:
            raise ConfigError(f"environment variable {name} is not known: did you mean {known[near[0]]}?")
        strange.append(name)
    if strange:
        _warn_of(tuple(sorted(strange)))


def _is_of_a_service(name: str, value: str) -> bool:
    if _OF_SERVICES.fullmatch(name):
        return True
    if name.endswith("_PORT"):
        return _SERVICE_URL.fullmatch(value) is not None
    return name.endswith("_NAME") and value.startswith("/")  # of a link: /web/rqmem


@cache
def _warn_of(names: tuple[str, ...]) -> None:
    _log.warning(
        "environment: %s %s no setting of rqmem and passed over; 'rqmem config' shows all there are",
        ", ".join(names), "is" if len(names) == 1 else "are",
    )  # fmt: skip
