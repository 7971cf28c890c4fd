"""All settings of rqmem. Each is declared once, at its field of `Config`.

From the declaration come the variable, the name in the config file, the option of ``rqmem worker``, the default, the
text of ``--help`` and the row in docs/settings.md (`scripts.docs_tables`). `rqmem.config.load` reads the values, once,
where a program starts; nothing deeper reads the environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rqmem.config.parsers import (
    OneOf,
    Parser,
    boolean,
    duration,
    fraction,
    names,
    number,
    path,
    positive_int,
    whole_number,
    whole_seconds,
    words,
)
from rqmem.units import MB
from rqmem.values import dataclass

positive_mb = number("MB", "256")
_GROWTH_BYTES_PER_SECOND = 8e9  # facts/memory-enforcement.md, section 1
LEAST_WORKER_MEMORY_MB = 512


@dataclass(frozen=True)
class Setting:
    """A setting's names, how its text is read, and what it means.

    Attributes:
        variable: of the environment.
        about: what it means, for docs/settings.md and ``--help``.
        options: of ``rqmem worker``, the long one first; empty: it has none.
        group: the heading of its option in ``--help``.
        metavar: the value of the option in ``--help``.
        unit: of its value, for people.
        secret: its value is never shown.
    """

    variable: str
    parse: Parser
    about: str
    options: tuple[str, ...] = ()
    group: str = ""
    metavar: str = ""
    unit: str = ""
    secret: bool = False

    @property
    def name(self) -> str:
        """As the config file has it."""
        return self.variable.removeprefix("RQMEM_").lower()

    @property
    def help(self) -> str:
        """What it means, and its values if they are few."""
        return f"{self.about}: {self.parse}" if isinstance(self.parse, OneOf) else self.about


def _setting(
    default: Any, variable: str, parse: Parser, about: str, options: str = "", group: str = "", metavar: str = "",
    unit: str = "", *, secret: bool = False,
) -> Any:  # fmt: skip
    setting = Setting(variable, parse, about, tuple(options.split()), group, metavar, unit, secret)
    return dataclasses.field(default=default, repr=not secret, metadata={"setting": setting})


def _of_type(parse: Parser) -> Any:
    return dataclasses.field(default=None, metadata={"parse": parse})


@dataclass(frozen=True)
class JobSettings:
    """What the config file says of one job type, above what its class declares. None: it says nothing.

    Attributes:
        memory_limit_mb: its ceiling, in MB; never more than the worker's.
        chunk_size: items per chunk at the start.
        bytes_per_item: what an item costs, in bytes, for ``should_split_job``.
        split_above_items: it splits above this number of items, whatever their size.
        items_per_child: items of a child.
    """

    memory_limit_mb: float | None = _of_type(positive_mb)
    chunk_size: int | None = _of_type(positive_int)
    bytes_per_item: float | None = _of_type(number("bytes", "2048"))
    split_above_items: int | None = _of_type(positive_int)
    items_per_child: int | None = _of_type(positive_int)

    @property
    def given(self) -> dict[str, Any]:
        """What it says something of, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Config:
    """The settings of one worker or one application process."""

    memory_mb: float | None = _setting(
        None, "RQMEM_MEMORY", positive_mb, "the most memory in MB that a job on this worker may use",
        "--memory -m", "Memory", "MB", "MB",
    )  # fmt: skip
    reserve_mb: float = _setting(
        32.0, "RQMEM_RESERVE", number("MB", "32", or_zero=True),
        "MB above the ceiling that a job may use for its clean-up; above that it is killed",
        "--reserve", "Memory", "MB", "MB",
    )  # fmt: skip
    cgroup: str = _setting(
        "auto", "RQMEM_CGROUP",
        OneOf(auto="use one where it can be had", off="never", require="do not start without one"),
        "whether the kernel keeps the ceiling too, by a cgroup", "--cgroup", "Memory",
    )  # fmt: skip
    worker_memory_mb: float | None = _setting(
        None, "RQMEM_WORKER_MEMORY", positive_mb,
        f"the most memory in MB that the worker's own process may use; by default {LEAST_WORKER_MEMORY_MB}, or twice "
        "what it starts with if that is more", "--worker-memory", "Memory", "MB", "MB",
    )  # fmt: skip
    on_worker_limit: str = _setting(
        "restart", "RQMEM_ON_WORKER_LIMIT", OneOf(restart="restart in place", exit="end with exit code 12"),
        "what the worker does between two jobs when its own process uses too much memory",
        "--on-worker-limit", "Memory",
    )  # fmt: skip
    total_memory_mb: float | None = _setting(
        None, "RQMEM_TOTAL_MEMORY", positive_mb,
        "MB that all jobs of a pool may use together; by default what the machine or the container has free, less a "
        "tenth", "--total-memory", "Pool", "MB", "MB",
    )  # fmt: skip
    tenant_memory_mb: float | None = _setting(
        None, "RQMEM_TENANT_MEMORY", positive_mb,
        "MB of these that the jobs of one tenant may use together; by default as many as all jobs",
        "--tenant-memory", "Pool", "MB", "MB",
    )  # fmt: skip
    timeout_seconds: int | None = _setting(
        None, "RQMEM_TIMEOUT", whole_seconds, "the longest time that a job may run on this worker",
        "--timeout", "Jobs", "TIME", "seconds",
    )  # fmt: skip
    auto: bool = _setting(
        False, "RQMEM_AUTO", boolean, "start adaptive jobs with the chunk size that their history recommends",
        "--auto", "Jobs",
    )  # fmt: skip
    isolation: str = _setting(
        "warm", "RQMEM_ISOLATION", OneOf(warm="a horse runs many jobs", fork="a horse for each job"),
        "whether jobs share a process", "--isolation", "Horses",
    )  # fmt: skip
    max_jobs_per_horse: int | None = _setting(
        None, "RQMEM_MAX_JOBS_PER_HORSE", positive_int, "replace a warm horse after this number of jobs",
        "--max-jobs-per-horse", "Horses", "COUNT",
    )  # fmt: skip
    lease_max: int = _setting(
        64, "RQMEM_LEASE_MAX", whole_number,
        "how many short jobs a warm horse may take from the queues at once; 0: the worker orders each job",
        "--lease-max", "Horses", "COUNT",
    )  # fmt: skip
    preload: tuple[str, ...] = _setting(
        (), "RQMEM_PRELOAD", names, "modules to import before horses are forked, so that horses share their memory",
        "--preload", "Horses", "MODULE",
    )  # fmt: skip
    preload_openmp: str = _setting(
        "refuse", "RQMEM_PRELOAD_OPENMP", OneOf(refuse="do not start", end="end the pool before horses are forked"),
        "what to do if a preloaded module leaves an OpenMP pool of threads", "--preload-openmp", "Horses",
    )  # fmt: skip
    plugins: tuple[str, ...] = _setting(
        (), "RQMEM_PLUGINS", names, "modules with hooks to call (docs/integrations.md)",
        "--plugin", "Horses", "MODULE",
    )  # fmt: skip
    integrations: bool = _setting(
        True, "RQMEM_INTEGRATIONS", boolean,
        "put Django, SQLAlchemy, Sentry and OpenTelemetry in order between jobs", "--integrations", "Horses",
    )  # fmt: skip
    profile: str = _setting(
        "off", "RQMEM_PROFILE",
        OneOf(memray="capture runs; keep those of breaches and the worst peaks", off="do not"),
        "whether to profile runs", "--profile", "Profiles",
    )  # fmt: skip
    profile_job: tuple[str, ...] = _setting(
        (), "RQMEM_PROFILE_JOB", names, "profile only runs of these job types",
        "--profile-job", "Profiles", "TYPE",
    )  # fmt: skip
    profile_dir: str = _setting(
        ".rqmem/profiles", "RQMEM_PROFILE_DIR", path, "the directory of profiles and snapshots",
        "--profile-dir", "Profiles", "DIR",
    )  # fmt: skip
    growth_mb_per_second: float | None = _setting(
        None, "RQMEM_GROWTH_RATE", number("MB per second", "8000"),
        "how fast memory can grow on this machine, which sets how often a job is looked at; by default it is measured",
        unit="MB a second",
    )  # fmt: skip
    sample_step_mb: float = _setting(
        16.0, "RQMEM_SAMPLE_STEP", positive_mb, "MB of growth between two samples of a job's stack", unit="MB"
    )
    heartbeat_seconds: float = _setting(
        5.0, "RQMEM_HEARTBEAT", duration,
        "time between two heartbeats of a worker; when two are missing, other workers take its jobs over",
        unit="seconds",
    )  # fmt: skip
    max_resumes: int = _setting(
        30, "RQMEM_MAX_RESUMES", positive_int,
        "how many resumes a job may spend; each costs 1, or 2 if it finished no chunk",
    )  # fmt: skip
    code_version: str = _setting(
        "", "RQMEM_CODE_VERSION", path,
        "the version of the code that jobs run, for marks in the dashboard; by default the commit that is checked out "
        "where the worker starts",
    )  # fmt: skip
    journal_enabled: bool = _setting(
        True, "RQMEM_JOURNAL", boolean, "record in Redis what happens: samples, runs, stories, alerts"
    )
    alert_growth_mb_per_minute: float = _setting(
        50.0, "RQMEM_ALERT_GROWTH", positive_mb,
        "raise an alert when a job grows by more than this number of MB within a minute",
        unit="MB a minute",
    )  # fmt: skip
    alert_collections: int = _setting(
        100, "RQMEM_ALERT_COLLECTIONS", positive_int, "raise an alert when a run collects garbage more often than this"
    )
    alert_cooldown_seconds: float = _setting(
        300.0, "RQMEM_ALERT_COOLDOWN", duration,
        "time until the same rule may raise an alert for the same job type again",
        unit="seconds",
    )  # fmt: skip
    alert_urls: tuple[str, ...] = _setting(
        (), "RQMEM_ALERT_URLS", words,
        "Apprise URLs to send alerts to, separated by spaces; other users can see an option, but not a variable",
        "--alert-url", "Alerts", "URL", secret=True,
    )  # fmt: skip
    alert_urls_file: str | None = _setting(
        None, "RQMEM_ALERT_URLS_FILE", path, "a file with one such URL on each line",
        "--alert-urls-file", "Alerts", "FILE",
    )  # fmt: skip
    signing_keys: tuple[str, ...] = _setting(
        (), "RQMEM_SIGNING_KEY", words,
        "keys of `rqmem.serializers.Signed`, separated by spaces; the first one signs, and all verify", secret=True,
    )  # fmt: skip
    signing_key_file: str | None = _setting(
        None, "RQMEM_SIGNING_KEY_FILE", path, "a file with one such key on each line"
    )
    auto_split_enabled: bool = _setting(
        True, "JOB_AUTO_SPLIT_ENABLED", boolean, "whether `should_split_job` may say yes"
    )
    max_items_per_child: int = _setting(
        500, "JOB_MAX_ITEMS_PER_CHILD", positive_int,
        "items of a child if the job does not say how many; fewer if they do not all fit",
    )  # fmt: skip
    default_limit_mb: float = _setting(
        256.0, "MEMORY_DEFAULT_LIMIT_MB", positive_mb, "ceiling in MB if neither job nor worker names one", unit="MB"
    )
    default_chunk_size: int = _setting(
        100, "MEMORY_DEFAULT_CHUNK_SIZE", positive_int, "items per chunk at the start if the job does not say how many"
    )
    warning_threshold: float = _setting(
        0.8, "MEMORY_WARNING_THRESHOLD", fraction,
        "fraction of the ceiling; above it there is an alert, and checkpoints collect garbage",
    )  # fmt: skip
    monitoring_enabled: bool = _setting(
        True, "MEMORY_MONITORING_ENABLED", boolean,
        "whether checkpoints read and log memory; the ceiling holds in any case",
    )  # fmt: skip
    budget_mb: float | None = None
    """What all jobs of the pool may use together, as the pool found it; no ceiling is above it. No setting."""
    grace_seconds: float = 2.0
    """How long unwinding may take before the kill. No setting."""
    jobs: Mapping[str, JobSettings] = dataclasses.field(default_factory=dict)
    """Job type -> what the config file says of it."""

    @property
    def growth_rate(self) -> float:
        """Bytes per second: what was given or measured, else what covers huge pages and two cores (8 GB/s)."""
        return (self.growth_mb_per_second or 0.0) * MB or _GROWTH_BYTES_PER_SECOND

    def budget_of(self, tenant: str) -> float | None:
        """What a job of this tenant may use at most, for what all jobs of the pool, and its tenant's, may; None: any.

        ``tenant``: empty: for nobody.
        """
        both = (self.budget_mb, self.tenant_memory_mb) if tenant and self.budget_mb is not None else (self.budget_mb,)
        return min((each for each in both if each is not None), default=None)

    def of_job(self, job: str) -> dict[str, Any]:
        """What the config file says of a job type, by the names of `JobSettings`; above what its class declares."""
        return self.jobs[job].given if job in self.jobs else {}


SETTINGS: dict[str, Setting] = {
    each.name: each.metadata["setting"] for each in dataclasses.fields(Config) if "setting" in each.metadata
}
"""Field of `Config` -> the setting that it holds."""

FIELDS = {setting.name: field for field, setting in SETTINGS.items()}
"""Name in the config file -> field of `Config`."""

JOB_SETTINGS: dict[str, Parser] = {each.name: each.metadata["parse"] for each in dataclasses.fields(JobSettings)}
"""Field of `JobSettings` -> how its text is read."""


def shown(field: str, value: Any) -> str:
    """A setting's value as people write it; empty: none is given."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return f"{len(value)}, not shown" if SETTINGS[field].secret else " ".join(value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def default(field: str) -> str:
    """The default as people write it; empty: none."""
    return shown(field, getattr(Config, field))
