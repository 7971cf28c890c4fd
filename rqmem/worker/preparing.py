"""What a process does once before it forks: a worker by itself, and a pool's parent for all its workers.

A page that a fork writes to is its own, even if it only counts a reference. So what the parent has done here costs
its workers no memory.
"""

from __future__ import annotations

import logging

from rqmem import integrations
from rqmem.config.settings import LEAST_WORKER_MEMORY_MB, Config
from rqmem.errors import ConfigError
from rqmem.measure import machine, procfs, trim
from rqmem.measure.startup_checks import fork
from rqmem.store import scripts
from rqmem.units import show_mb, to_bytes, to_mb
from rqmem.worker import profiling
from rqmem.worker.alert_sender import SenderProcess
from rqmem.worker.horse import hook_runner
from rqmem.worker.imports import preload, preload_jobs

_log = logging.getLogger("rqmem.worker")


def prepare(config: Config, whose: str) -> None:
    """Import what forks need; warn of a ceiling that cannot be had. ``whose``: "worker ada". Raises `ConfigError`."""
    _warn_of_too_little(config, whose)
    trim.warm_up()
    scripts.read_all()
    preload(config.preload, config.preload_openmp)
    hook_runner.installed()  # each worker loads them: one that begins later has new code
    if config.integrations:
        integrations.load_imported()
    preload_jobs()


def try_start(config: Config) -> None:
    """Try in a fork what only a worker's start looks at, so that a pool starts none that cannot run.

    The fork takes along what plugins and Apprise use. It has 4096 bytes to say what is wrong.

    Raises:
        ConfigError: a plugin cannot be imported, or alerts cannot be sent, or profiles cannot be kept.
    """
    with fork(lambda: _why_not(config).encode()[:4096] or b"\0") as (_, said):
        if said.strip(b"\0"):
            raise ConfigError(said.decode(errors="replace"))


def _why_not(config: Config) -> str:
    from rqmem.alerts.addresses import addresses
    from rqmem.alerts.service import services

    logging.disable()  # each worker says it again
    try:
        profiling.check(config)
        hook_runner.load(config.plugins)
        if SenderProcess.wanted(config):
            services(addresses(config))
    except ConfigError as error:
        return str(error)
    return ""


def check_ceilings(config: Config, limit_mb: float, idle_bytes: int) -> int:
    """Bytes that the worker itself may use.

    Args:
        limit_mb: the ceiling of jobs that declare none.
        idle_bytes: what a horse uses that has done nothing yet.

    Raises:
        ConfigError: what is there already exceeds a ceiling.
    """
    own_bytes = procfs.own_held_bytes()
    if idle_bytes >= to_bytes(limit_mb):
        raise ConfigError(
            f"a ceiling of {show_mb(limit_mb)} MB cannot hold: an idle horse already uses "
            f"{show_mb(to_mb(idle_bytes))} MB; give --memory (or RQMEM_MEMORY) clearly more than that"
        )
    wanted_mb = config.worker_memory_mb
    own_limit_bytes = to_bytes(wanted_mb) if wanted_mb else max(to_bytes(LEAST_WORKER_MEMORY_MB), 2 * own_bytes)
    if own_bytes >= own_limit_bytes:
        raise ConfigError(
            f"a ceiling of {show_mb(to_mb(own_limit_bytes))} MB for the worker itself cannot hold: it starts "
            f"with {show_mb(to_mb(own_bytes))} MB; give --worker-memory (or RQMEM_WORKER_MEMORY) clearly more"
        )
    return own_limit_bytes


def _warn_of_too_little(config: Config, whose: str) -> None:
    limit_mb = config.memory_mb or config.default_limit_mb
    wanted_bytes = to_bytes(limit_mb + config.reserve_mb)
    for what, there in (("machine has", machine.total_bytes()), ("container may use", machine.container_limit_bytes())):
        if there is not None and wanted_bytes > there:
            _log.warning(
                "%s: a ceiling of %s MB and a reserve of %s MB are more than the %s MB that this %s: "
                "the kernel will act first, and on any process",
                whose, show_mb(limit_mb), show_mb(config.reserve_mb), show_mb(to_mb(there)), what,
            )  # fmt: skip
