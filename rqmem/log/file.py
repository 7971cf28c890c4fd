"""A log file that several processes append to and that may be rotated under them.

Like `logging.handlers.WatchedFileHandler` it goes on with whatever file its path names now. Not that class, because
here worker and horse write to one file, and memory of the one is a fork of the other's:

* a record is one ``write`` (`LineWriter`) to a descriptor opened with ``O_APPEND``: lines never mix, however long, and
  no half of one waits in a buffer that a fork would double;
* `LogFile.reopen` replaces the descriptor in one step (``dup2``), without a lock, so a signal handler may call it
  while a record is being written;
* a record that cannot be written (the disk is full) is lost and ends nobody: one line on stderr says so, and one in
  the file, once it takes lines again, how many are missing.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from rqmem import own_files
from rqmem.errors import UntrustedFile
from rqmem.log.whole_lines import LineWriter, handle_error, missing_line


class LogFile(logging.Handler):
    """Appends to the file at ``path``, made if it is not there.

    Args:
        path: may be relative and begin with ``~``; a later change of directory does not move it.

    Raises:
        OSError: it cannot be opened for writing, or another user's link or file is in the way.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()
        fd = self._open()  # before `logging` knows of us, which closes at exit what it knows
        super().__init__()
        self.writer = LineWriter(fd, f"log file {self.path}", lambda lost: missing_line(self, lost))
        self._identity = _identity(os.fstat(fd))
        self._wanted = False  # to open the file again
        self._reopening_in = 0  # the process: a fork may begin while another thread is at it

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to the file that the path names now."""
        if self.writer.fd < 0 and not self._open_again():
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  as every handler of logging: a bad format string ends nobody
            self.handleError(record)
            return
        if self._has_moved():
            self.reopen()
        self.writer.write(line)

    def handleError(self, record: logging.LogRecord) -> None:
        handle_error(super().handleError, record)

    def reopen(self) -> None:
        """Go on with the file that the path names now; where it cannot be opened, with the one there is."""
        if self.writer.fd < 0:
            return
        self._wanted = True
        if self._reopening_in == os.getpid():  # a signal interrupted this method, which repeats its work
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
            self.writer.complain("opening", f"cannot be opened again ({error.strerror}); lines go to the file it was")
            return
        self.writer.is_over("opening")
        os.dup2(opened, self.writer.fd, inheritable=False)
        self._identity = _identity(os.fstat(opened))
        os.close(opened)

    def close(self) -> None:
        """Close the file; as `logging.FileHandler`, it is opened again for later records.

        `logging.config` closes all handlers there are, when a job has it configure its own logging.
        """
        self.acquire()
        if self.writer.fd >= 0:
            self.writer.finish()
        fd, self.writer.fd = self.writer.fd, -1
        if fd >= 0:
            os.close(fd)
        self.release()
        super().close()

    def _open_again(self) -> bool:
        try:
            self.writer.fd = self._open()
        except OSError:
            return False
        self._identity = _identity(os.fstat(self.writer.fd))
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


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
