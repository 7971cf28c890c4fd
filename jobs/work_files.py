"""Files that a job makes, written whole or not at all, and the directory for a run's unfinished work.

A file is written under another name on the same file system, flushed to the disk, and renamed. A reader sees the old
file or the new one, even after a power cut. If the disk is full, the old file stays.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from rq import get_current_job
from rq.job import Job

from rqmem.errors import ConfigError

if TYPE_CHECKING:
    from redis import Redis

_WORK = ".work-"
_LEFT_SECONDS = 24 * 3600


def write_draft(draft: Path, write: Callable[[BinaryIO], Any], for_path: Path) -> None:
    """Write ``draft``, which will become ``for_path``, and flush it to the disk.

    Raises:
        ConfigError: it could not be written; nothing of it is left.
    """
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        kept = "the file that was there is unchanged" if for_path.exists() else "no file was left there"
        raise ConfigError(
            f"{for_path} cannot be written: {error.strerror or error}; {kept}: make room, then run 'rqmem retry' on "
            "the job"
        ) from error


def publish(draft: Path, path: Path) -> None:
    """Give a finished draft its name. Raises `ConfigError`."""
    try:
        draft.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{path} cannot be replaced: {error.strerror}: mend that, then run 'rqmem retry'") from error


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """A lock: other processes of this machine wait for it. It ends with the process. Some network disks cannot lock."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """`write_draft` next to the file, then `publish`. Two processes may do it at once. Raises `ConfigError`."""
    draft = path.with_name(f"{path.name}.{uuid4().hex[:8]}.draft")
    write_draft(draft, write, path)
    publish(draft, path)


class WorkDirectory:
    """Where one run of a job keeps its shards, its half-trained learner and its drafts: ``MODEL.work-JOB``.

    It stays when the job fails, for ``rqmem retry``. The next run for the same model removes the directories of jobs
    that RQ no longer knows, if nothing was written in them for a day. Without a job (a direct call) it is removed with
    this object.

    Attributes:
        model: what the run makes.
        path: of the directory.
        run: names the job and this run of it: which one made a model.

    Args:
        run_id: of this run of the job.
    """

    def __init__(self, model: Path, run_id: str) -> None:
        self.model, self._job = model, get_current_job()
        name = self._job.id if self._job is not None else f"direct-{run_id}"
        self.run = f"{name}, run {run_id}" if self._job is not None else name
        self.path = model.with_name(f"{model.name}{_WORK}{name}")
        if self._job is None:
            weakref.finalize(self, self.remove_at, self.path)

    def make(self) -> None:
        """Raises `ConfigError`."""
        if not self.model.parent.is_dir():
            raise ConfigError(f"{self.model}: there is no directory {self.model.parent}: make it, or mend the path")
        if self.model.is_dir():
            raise ConfigError(f"{self.model} is a directory: name a file in it")
        if self._job is not None:
            self._sweep(self._job.connection)
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror}") from error

    def _sweep(self, connection: Redis) -> None:
        for other in self.model.parent.glob(f"{escape(self.model.name)}{_WORK}*"):
            name = other.name.removeprefix(f"{self.model.name}{_WORK}")
            with suppress(OSError):  # another run removes it as well
                old = time.time() - other.stat().st_mtime > _LEFT_SECONDS
                if old and not Job.exists(name, connection=connection):
                    self.remove_at(other)

    def remove(self) -> None:
        self.remove_at(self.path)

    @staticmethod
    def remove_at(path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
