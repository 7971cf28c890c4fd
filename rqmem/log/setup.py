"""What a command does with the log of its process. Nothing of it happens at import, or by using rqmem as a library."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from rqmem.errors import ConfigError
from rqmem.log.file import LogFile
from rqmem.log.formats import LogFormat, formatter
from rqmem.log.lines import tell_every_checkpoint


def configure(level: str, log_format: LogFormat, file: str | None = None, *, every_checkpoint: bool = False) -> None:
    """For commands: rqmem's and RQ's lines in one format, to stderr or to ``file``. From the main thread.

    Args:
        level: a name of `logging`.
        log_format: ``"text"`` or ``"json"``.
        file: appended to. SIGHUP then has this process, and what it forks, open the file anew, and ends none of them.
        every_checkpoint: don't thin checkpoints out.

    Raises:
        ConfigError: the file cannot be written.
    """
    handler = logging.StreamHandler(sys.stderr) if file is None else _log_file(file)
    handler.setFormatter(formatter(log_format, dated=file is not None))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in ("rqmem", "rq"):
        logging.getLogger(name).setLevel(level.upper())
    for name in ("rq.worker", "rq.job"):  # these have a level of their own from RQ's import
        logging.getLogger(name).setLevel(level.upper())
    tell_every_checkpoint(every_checkpoint)


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
