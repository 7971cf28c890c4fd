"""The options of ``rqmem worker`` and ``rqmem pool``, and what they say, checked."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from redis import Redis

from rqmem import log, named_code, own_files
from rqmem.cli.options import (
    code_path,
    given_settings,
    grouped,
    parsed,
    serializer_option,
    setting_options,
)
from rqmem.cli.terminal import redis_options, show
from rqmem.config.load import load
from rqmem.config.parsers import positive_int, seconds_or_no_limit, whole_seconds
from rqmem.connection.connect import MODULE_VARIABLE, connect, read_module
from rqmem.errors import ConfigError, RqmemError, UntrustedFile
from rqmem.measure import startup_checks
from rqmem.rq_names import (
    DEFAULT_CONNECTION_CLASS,
    DEFAULT_JOB_CLASS,
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_QUEUE_CLASS,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
    Job,
    Queue,
    is_suspended,
)
from rqmem.worker.memory_worker import MemoryWorker


def _log_format(text: str, name: str) -> str:
    if text in ("text", "json") or "%(message)s" in text:
        return text
    raise ConfigError(f"{name} {text!r}: give text, json, or a format with %(message)s in it")


_TIME = parsed("TIME", whole_seconds)
_TTL = parsed("TIME", seconds_or_no_limit)
_COUNT = parsed("COUNT", positive_int)


def _flag(*names: str, about: str) -> Any:
    return click.option(*names, is_flag=True, help=about)


def _value(*names: str, about: str, metavar: str, **more: Any) -> Any:
    return click.option(*names, metavar=metavar, help=about, **more)


def _time(option: str, default: int, about: str) -> Any:
    return click.option(option, **_TIME, default=str(default), help=about)


def _path(option: str, short: str, default: str, about: str, variable: str) -> Any:
    names = [option, short] if short else [option]
    return _value(*names, metavar="PATH", envvar=variable, default=default, about=about)


_STRATEGIES = ["default", "round_robin", "random"]
_LEVELS = ["debug", "info", "warning", "error", "critical"]
_GROUPS = (
    grouped(
        "Queues and Redis",
        _value("--queue", "more", metavar="NAME", multiple=True, about="A queue; may be repeated."),
        click.option(
            "--dequeue-strategy", type=click.Choice(_STRATEGIES), default="default", help="Which queue is served next."
        ),
        redis_options,
    ),
    grouped("Memory", setting_options("Memory")),
    grouped(
        "Jobs",
        setting_options("Jobs"),
        click.option("--max-jobs", **_COUNT, help="Quit after this number of jobs."),
        click.option("--max-idle-time", **_TIME, help="Quit after this time without a job."),
        _flag("--burst", "-b", about="Quit when all queues are empty."),
        _flag("--with-scheduler", "-s", about="Move scheduled jobs to their queues when they are due."),
        code_path,
    ),
    grouped("Horses", setting_options("Horses")),
    grouped("Alerts", setting_options("Alerts")),
    grouped("Profiles", setting_options("Profiles")),
    grouped(
        "Log",
        _value(
            *("--log-level", "--logging-level", "--logging_level", "log_level"),
            metavar="LEVEL",
            type=click.Choice(_LEVELS, case_sensitive=False),
            about="debug, info, warning, error or critical.  [default: info]",
        ),
        _flag("--verbose", "-v", about="The same as --log-level debug."),
        _flag("--quiet", "-q", about="The same as --log-level warning."),
        click.option(
            "--log-format",
            **parsed("FORMAT", _log_format),
            default="text",
            help="text, json, or a format of Python's logging.",
        ),
        _value("--date-format", metavar="FORMAT", about="The format of times in the log, for example '%H:%M:%S'."),
        _value("--log-file", metavar="FILE", about="Append log lines to FILE; SIGHUP opens it anew."),
        _flag("--log-every-checkpoint", about="Log all checkpoints, not only the notable ones."),
        _flag("--disable-job-desc-logging", about="Keep arguments of jobs out of the log."),
    ),
    grouped(
        "RQ",
        _value("--pid", metavar="FILE", about="Write the worker's process id to FILE."),
        _value(
            "--exception-handler",
            metavar="PATH",
            multiple=True,
            about="A function to call with each failed job. May be repeated.",
        ),
        _flag("--disable-default-exception-handler", "-d", about="Call only the handlers of --exception-handler."),
        click.option(
            *("--results-ttl", "default_result_ttl"),
            **_TTL,
            default=str(DEFAULT_RESULT_TTL),
            help="How long to keep results; -1: for ever.",
        ),
        _time("--worker-ttl", DEFAULT_WORKER_TTL, "How long RQ keeps the record of a worker that sends no heartbeat."),
        _time("--maintenance-interval", DEFAULT_MAINTENANCE_TASK_INTERVAL, "Time between RQ's clean-ups."),
        _time("--job-monitoring-interval", DEFAULT_JOB_MONITORING_INTERVAL, "Time between RQ's heartbeats of a job."),
        serializer_option,
        _path("--worker-class", "-w", "rqmem.MemoryWorker", "A subclass of rqmem.MemoryWorker.", "RQ_WORKER_CLASS"),
        _path("--connection-class", "", DEFAULT_CONNECTION_CLASS, "Redis client class.", "RQ_CONNECTION_CLASS"),
        _path("--job-class", "-j", DEFAULT_JOB_CLASS, "RQ Job class.", "RQ_JOB_CLASS"),
        _path("--queue-class", "", DEFAULT_QUEUE_CLASS, "RQ Queue class.", "RQ_QUEUE_CLASS"),
    ),
)


_OF_WORKER = (
    *("default_result_ttl", "worker_ttl", "maintenance_interval", "job_monitoring_interval"),
    "disable_default_exception_handler",
)
_OF_WORK = ("burst", "max_jobs", "max_idle_time", "with_scheduler", "dequeue_strategy")


def worker_options(command: Any) -> Any:
    """All options of ``rqmem worker`` but ``--name``, below their headings."""
    for group in reversed(_GROUPS):
        command = group(command)
    return command


@dataclass(frozen=True)
class Prepared:
    """What the options say, read and imported.

    Attributes:
        queues: their names.
        name: as ``--name`` or RQ's settings file has it; None: none was given.
        connect: opens a connection.
        worker_options: arguments of ``worker_class`` besides queues, name and connection.
        work_options: arguments of its `work`.
    """

    queues: list[str]
    name: str | None
    worker_class: type[MemoryWorker]
    connect: Callable[[], Redis]
    worker_options: dict[str, Any]
    work_options: dict[str, Any]


def prepared(names: Iterable[str], options: Mapping[str, Any]) -> Prepared:
    """Read the options, begin the log, and find a Redis that answers.

    Raises:
        ConfigError: an option, the environment or a file says what cannot be used.
        RqmemError: Redis does not answer, or RQ is suspended.
    """
    startup_checks.check_platform()
    sys.path[:0] = options["paths"]
    module = os.environ.get(MODULE_VARIABLE, "").strip()
    of_rq = read_module(module) if module else {}
    queues = _queue_names([*names] or list(of_rq.get("QUEUES", ())))
    name = options["name"] or of_rq.get("NAME")
    for text in (*queues, name or ""):
        text.encode()  # `rqmem.cli` says what is wrong with one that is not UTF-8
    config = load(os.environ, given_settings(options)).config
    level = _log_level(options)
    log.configure(
        level,
        options["log_format"],
        options["log_file"],
        date_format=options["date_format"],
        every_checkpoint=options["log_every_checkpoint"],
    )
    if of_rq.get("DICT_CONFIG"):
        log.configure_by(of_rq["DICT_CONFIG"], f"DICT_CONFIG of -c {module}")
    handlers = [named_code.attribute(path, f"--exception-handler {path!r}") for path in options["exception_handler"]]
    connection_class = _class(options["connection_class"], "--connection-class", Redis)
    connection = partial(connect, options["url"], connection_class=connection_class)
    read = Prepared(
        queues,
        name,
        _class(options["worker_class"], "--worker-class", MemoryWorker),
        partial(connection, announce=lambda line: None),
        {
            **{name: options[name] for name in _OF_WORKER},
            "config": config,
            "job_class": _class(options["job_class"], "--job-class", Job),
            "queue_class": _class(options["queue_class"], "--queue-class", Queue),
            "exception_handlers": handlers or None,
            "log_job_description": not options["disable_job_desc_logging"],
            "serializer": named_code.serializer(options["serializer"], "--serializer"),
        },
        {**{name: options[name] for name in _OF_WORK}, "logging_level": level},
    )
    if is_suspended(connection(announce=lambda line: show(line, err=True))):
        raise RqmemError("RQ is suspended on this Redis: 'rq resume' lets workers go on")
    if options["pid"]:
        _write_pid(options["pid"])
    return read


def readable_name() -> str:
    """Host and pid for people; what is random in it keeps a restarted container from meeting its own ghost."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def _log_level(options: Mapping[str, Any]) -> str:
    if options["verbose"] and options["quiet"]:
        raise ConfigError("--verbose and --quiet exclude each other: give one of them")
    short = "debug" if options["verbose"] else "warning" if options["quiet"] else "info"
    return options["log_level"] or short


def _queue_names(names: list[str]) -> list[str]:
    for name in names:
        if not name.strip():
            raise ConfigError(f"queue name {name!r} is empty: give a name, for example --queue campaigns")
    return names or ["default"]


def _class(path: str, option: str, base: type) -> Any:
    found = named_code.attribute(path, f"{option} {path!r}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{option} {path!r} is no subclass of {base.__module__.partition('.')[0]}.{base.__name__}")
    return found


def _write_pid(path: str) -> None:
    try:
        with os.fdopen(own_files.open_output(Path(path).expanduser(), os.O_WRONLY | os.O_TRUNC), "w") as file:
            file.write(f"{os.getpid()}\n")
    except UntrustedFile as error:
        raise ConfigError(f"--pid {path}: {error}") from None
    except OSError as error:
        raise ConfigError(
            f"--pid {path}: {error.strerror}; give a file that can be written, in a directory that exists"
        ) from None
