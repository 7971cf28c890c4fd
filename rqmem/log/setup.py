"""What a command does with the log of its process. Nothing of it happens at import, or by using rqmem as a library."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Any

from rqmem.errors import ConfigError
from rqmem.log.file import LogFile
from rqmem.log.formats import formatter
from rqmem.log.lines import tell_every_checkpoint
from rqmem.log.whole_lines import keep_lines_whole


def configure(
    level: str,
    log_format: str,
    file: str | None = None,
    *,
    date_format: str | None = None,
    every_checkpoint: bool = False,
) -> None:
    """For commands: rqmem's and RQ's lines in one format, to stderr or to ``file``. From the main thread.

    Args:
        level: a name of `logging`.
        log_format: ``"text"``, ``"json"``, or a format of `logging` with ``%(message)s``.
        file: appended to. On SIGHUP this process and its forks open the file again, and none of them ends.
        date_format: of the times in text lines, as `time.strftime` takes it.
        every_checkpoint: don't thin checkpoints out.

    Raises:
        ConfigError: the file cannot be written.
    """
    handler = logging.StreamHandler(sys.stderr) if file is None else _log_file(file)
    keep_lines_whole(handler)
    handler.setFormatter(formatter(log_format, dated=file is not None, date_format=date_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in ("rqmem", "rq"):
        logging.getLogger(name).setLevel(level.upper())
    for name in ("rq.worker", "rq.job"):  # these have a level of their own from RQ's import
        logging.getLogger(name).setLevel(level.upper())
    tell_every_checkpoint(every_checkpoint)


def configure_by(dict_config: Any, source: str) -> None:
    """What RQ's settings file says of the log, above that; RQ's and rqmem's loggers go on. Raises `ConfigError`."""
    import logging.config

    try:
        logging.config.dictConfig({"disable_existing_loggers": False, **dict_config})
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        raise ConfigError(f"{source} cannot be used: {error}") from None
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] in ("rq", "rqmem"):
            logging.getLogger(name).disabled = False
    _keep_lines_whole()


def borrow_handlers(lender: str = "rq.worker") -> None:
    """Under another program than ours (``rq worker -w``, django-rq): rqmem's lines go where RQ's go.

    rqmem's logger gets the handlers of RQ's where it has none, and its level where it has none of its own. From now on
    the worker's signal handlers may use these handlers at any moment.
    """
    theirs, ours = logging.getLogger(lender), logging.getLogger("rqmem")
    if ours.level == logging.NOTSET:
        ours.setLevel(theirs.getEffectiveLevel())
    if not ours.hasHandlers():
        ours.handlers[:] = theirs.handlers
        ours.propagate = False
    _keep_lines_whole()


def _keep_lines_whole() -> None:
    for name in ("", "rq", "rqmem", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("", "rq", "rqmem"):
            for handler in logging.getLogger(name).handlers:
                keep_lines_whole(handler)


def _log_file(path: str) -> LogFile:
    try:
        handler = LogFile(path)
    except (OSError, RuntimeError) as error:  # the second: "~somebody" who has no home
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise ConfigError(
            f"--log-file {path!r}: {reason}; give a file that can be written, in a directory that exists"
        ) from None

    def reopen(number: int, frame: FrameType | None) -> None:
        handler.reopen()

    signal.signal(signal.SIGHUP, reopen)
    return handler
