"""A log file that several processes append to and that may be rotated under them.

Like `logging.handlers.WatchedFileHandler` it goes on with whatever file its path names now. Not that class, because
here worker and horse write to one file, and memory of the one is a fork of the other's:

* a record is one ``write`` to a descriptor opened with ``O_APPEND``: lines never mix, however long, and no half of one
  waits in a buffer that a fork would double;
* `LogFile.reopen` replaces the descriptor in one step (``dup2``), without a lock, so a signal handler may call it
  while a record is being written;
* a record that cannot be written (the disk is full) is lost and ends nobody: one line on stderr says so, and one in
  the file, once it takes lines again, how many are missing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from rqmem import own_files
from rqmem.errors import UntrustedFile

_STDERR = 2  # the descriptor: Python's stream may be in the middle of a line when a signal comes


class LogFile(logging.Handler):
    """Appends to the file at ``path``, made if it is not there.

    Args:
        path: may be relative and begin with ``~``; a later change of directory does not move it.

    Raises:
        OSError: it cannot be opened for writing, or another user's link or file is in the way.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()
        self._fd = self._open()  # before `logging` knows of us, which closes at exit what it knows
        super().__init__()
        self._identity = _identity(os.fstat(self._fd))
        self._lost = 0
        self._torn = False  # a line was written in part
        self._troubles: set[str] = set()  # told on stderr, and not over
        self._wanted = False  # to open the file anew
        self._reopening_in = 0  # the process: a fork may begin while another thread is at it

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to the file that the path names now."""
        if self._fd < 0 and not self._open_again():
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  as every handler of logging: a bad format string ends nobody
            self.handleError(record)
            return
        if self._has_moved():
            self.reopen()
        self._write(self._what_is_missing() + line)

    def reopen(self) -> None:
        """Go on with the file that the path names now; where it cannot be opened, with the one there is."""
        if self._fd < 0:
            return
        self._wanted = True
        if self._reopening_in == os.getpid():  # a signal came meanwhile: whoever is at it does it once more
            return
        self._reopening_in = os.getpid()
        try:
            while self._wanted:
                self._wanted = False
                self._reopen()
        finally:
            self._reopening_in = 0

    def _reopen(self) -> None:
        try:
            opened = self._open()
        except OSError as error:
            self._complain("opening", f"cannot be opened again ({error.strerror}); lines go to the file it was")
            return
        self._troubles.discard("opening")
        os.dup2(opened, self._fd, inheritable=False)
        self._identity = _identity(os.fstat(opened))
        os.close(opened)

    def close(self) -> None:
        """Close the file; as `logging.FileHandler`, it is opened again for later records.

        `logging.config` closes all handlers there are, when a job has it configure its own logging.
        """
        self.acquire()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self.release()
        super().close()

    def _open_again(self) -> bool:
        try:
            self._fd = self._open()
        except OSError:
            return False
        self._identity = _identity(os.fstat(self._fd))
        return True

    def _open(self) -> int:
        try:
            return own_files.open_output(self.path, os.O_WRONLY | os.O_APPEND)
        except UntrustedFile as error:
            raise PermissionError(errno.EPERM, str(error)) from None

    def _has_moved(self) -> bool:
        try:
            return _identity(self.path.stat()) != self._identity
        except OSError:
            return True

    def _write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace") + b"\n"
        if self._torn:
            data = b"\n" + data
        sent = 0
        try:
            while sent < len(data):  # once, but on a disk that is nearly full
                sent += os.write(self._fd, data[sent:])
        except OSError as error:
            self._lost += 1
            self._torn = self._torn or sent > 0
            self._complain("writing", f"cannot be written ({error.strerror}); lines are lost until it can")
            return
        self._lost, self._torn = 0, False
        self._troubles.discard("writing")

    def _what_is_missing(self) -> str:
        """A line of its own, where lines were lost before this one."""
        if not self._lost:
            return ""
        words = "%d lines before this one could not be written"
        record = logging.LogRecord("rqmem.log", logging.WARNING, "", 0, words, (self._lost,), None)
        return self.format(record) + "\n"

    def _complain(self, trouble: str, what: str) -> None:
        """Once, until that trouble is over; where `logging` may complain at all."""
        if trouble in self._troubles or not logging.raiseExceptions:
            return
        self._troubles.add(trouble)
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"rqmem: log file {self.path} {what}\n".encode(errors="backslashreplace"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
