"""``--profile memray``: a capture of each run, kept for breaches and the worst peaks of a job type.

The horse traces itself while it is in user code; memray writes to a mapped file, so that a killed horse leaves a
readable one (its ``--aggregate`` would leave nothing). The worker looks at the file's size and decides at the end.
A profile that cannot be had (disk full, too large, a job that runs a tracker of its own) is dropped and said once;
the job never hears of it. What a job forks is not traced; its threads are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rqmem import own_files
from rqmem.config.settings import Config
from rqmem.errors import ConfigError
from rqmem.measure import linux
from rqmem.policy.kept_captures import KEPT_PEAKS, MOST_SECONDS, Capture
from rqmem.profiling import captures
from rqmem.profiling import directory as private
from rqmem.units import MB, show_mb, to_mb
from rqmem.worker.horse.user_code import SAMPLE_SIGNAL, SNAPSHOT_SIGNAL
from rqmem.worker.peak_records import Peaks
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.worker_setup import Setup

MOST_BYTES_OF_ONE = 64 * MB
_FEWEST_FREE_BYTES = 16 * MB
_LOOK_SECONDS = 0.25
_log = logging.getLogger("rqmem.worker")
_tracker: Any = None  # of the horse; memray allows one in a process
_MUST_WAKE = sys.version_info[:2] == (3, 11)
"""There a traced thread that begins a function goes round and round while a signal waits for the main thread (its
``RESUME`` is dispatched anew after each look at pending signals), so a main thread that waits must be interrupted."""


def check(config: Config) -> None:
    """Make the directory where runs are to be captured, and try it. Raises `ConfigError`.

    Where none are, only a directory that somebody has named must be usable: snapshots go there.
    """
    directory = private.located(config.profile_dir)
    if config.profile == "memray":
        private.make(directory)
        private.check_room(directory)
        _check_memray(directory)
    elif config.profile_dir != Config().profile_dir:
        private.check_can_be(directory)


class Capturing:
    """The captures of one worker, and of its horses, which have copies. There are none before `begin`."""

    def __init__(self, setup: Setup) -> None:
        self._config = setup.config
        self._worker = setup.name
        self._directory = private.located(setup.config.profile_dir)
        self._mark = ""
        self._peaks = Peaks(KEPT_PEAKS, MOST_SECONDS)
        self._said: set[str] = set()
        self._growing: Path | None = None
        self._too_much = ""

    def begin(self) -> None:
        """Where the worker is to capture at all; before any fork. Raises `ConfigError` where memray cannot be used."""
        check(self._config)
        if self._config.profile != "memray":
            return
        captures.sweep(self._directory)
        self._mark = captures.mark_of_this_process()

    # In the worker

    @contextmanager
    def looked_after(self, page: SharedPage, horse_pid: int, execution_id: str) -> Iterator[None]:
        """While the horse runs this execution, have it stop capturing when there is too much of it."""
        if not self._mark:
            yield
            return
        self._growing, self._too_much = captures.running_path(self._directory, self._mark, execution_id), ""
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(page, horse_pid, over), name="rqmem-captures", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self, page: SharedPage, horse_pid: int, over: threading.Event) -> None:
        while not over.wait(_LOOK_SECONDS):
            with contextlib.suppress(OSError):
                self._too_much = self._too_much or self._why_too_much()
            if self._too_much and not page.capture_ended:
                page.capture_unwanted = True
                linux.tell_main_thread(horse_pid, SNAPSHOT_SIGNAL)

    def _why_too_much(self) -> str:
        if self._growing is None:
            return ""
        size = self._growing.stat().st_size
        room = os.statvfs(self._directory)
        if size > MOST_BYTES_OF_ONE:
            return f"it grew beyond {show_mb(to_mb(MOST_BYTES_OF_ONE))} MB"
        return f"{self._directory} is full" if room.f_bavail * room.f_frsize < _FEWEST_FREE_BYTES else ""

    def settle(self, job: str, job_id: str, page: SharedPage, *, breached: bool) -> None:
        """The run has ended: keep its capture or remove it."""
        growing, self._growing = self._growing, None
        if growing is None or not growing.exists():
            return
        peak_mb, now = to_mb(page.peak_bytes), time.time()
        try:
            if self._too_much:
                self._say(job, self._too_much)
            elif breached or self._peaks.is_record(job, peak_mb, now):
                limit_mb = to_mb(page.ceiling_bytes)
                about = Capture("", job, job_id, self._worker, now, peak_mb, limit_mb, breached, 0)
                captures.keep(growing, about)
        except (OSError, ConfigError) as error:
            self._say(job, str(error))
        finally:
            with contextlib.suppress(OSError):
                growing.unlink(missing_ok=True)

    def _say(self, job: str, why: str) -> None:
        """Once per job type."""
        if job not in self._said and len(self._said) < 100:
            self._said.add(job)
            _log.warning("worker %s: a profile of %s was dropped: %s; this is logged once", self._worker, job, why)

    # In the horse

    @contextmanager
    def captured(self, page: SharedPage, job: str, execution_id: str) -> Iterator[None]:
        """Trace this process meanwhile, where runs of this job type are wanted."""
        jobs = self._config.profile_job
        if not self._mark or (jobs and job not in jobs):
            yield
            return
        try:
            self._start(page, job, captures.running_path(self._directory, self._mark, execution_id))
            yield
        finally:
            stop(page)

    def _start(self, page: SharedPage, job: str, growing: Path) -> None:
        import memray

        global _tracker
        stop(page)  # one that the job before could not stop
        page.capture_ended = False
        try:
            growing.unlink(missing_ok=True)
            os.close(own_files.create(growing))
            tracker = memray.Tracker(destination=_destination(growing))
            _wake_main_thread(_MUST_WAKE)
            tracker.__enter__()
            _tracker = tracker
        except (OSError, RuntimeError) as error:
            page.capture_ended = True
            self._say(job, str(error))


def stop(page: SharedPage) -> None:
    """End the capture of this process, if there is one; also from a handler of a signal."""
    global _tracker
    tracker, _tracker = _tracker, None
    page.capture_ended = True
    if tracker is not None:
        with contextlib.suppress(OSError, RuntimeError):
            tracker.__exit__(None, None, None)
        _wake_main_thread(False)


def _wake_main_thread(interrupt: bool) -> None:
    """Whether signals that may wait else end what it waits for; Python's own calls go on after them."""
    for number in (SAMPLE_SIGNAL, SNAPSHOT_SIGNAL):
        signal.siginterrupt(number, interrupt)


def _destination(path: Path) -> Any:
    import memray

    return memray.FileDestination(path, overwrite=True, compress_on_exit=False)


def _check_memray(directory: Path) -> None:
    """Raise `ConfigError` where memray is not there, or cannot capture here; tried in a process of its own."""
    if importlib.util.find_spec("memray") is None:
        raise ConfigError("--profile memray (RQMEM_PROFILE): memray is not installed: pip install 'rqmem[profile]'")
    unable = f"--profile memray (RQMEM_PROFILE): memray does not work on this Python {platform.python_version()}"
    try:
        import memray
    except Exception as error:
        raise ConfigError(f"{unable}: {' '.join(str(error).split())}; leave the option out") from error
    probe = directory / f".probe-{os.getpid()}"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with memray.Tracker(destination=_destination(probe)):
                bytes(MB)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    probe.unlink(missing_ok=True)
    if status != 0:
        raise ConfigError(f"{unable}, or not in {directory}: a capture failed; leave the option out, or --profile-dir")
