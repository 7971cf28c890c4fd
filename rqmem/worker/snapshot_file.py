"""SIGUSR2 to a worker: a snapshot of it and of the job it runs, as a private file in the profile directory.

The handler writes one byte to a pipe and nothing else, since the main thread may be in the middle of anything; a
thread of its own does the rest, and sleeps in the kernel until then. It changes nothing, asks no Redis, and neither
waits for the main thread nor has it wait: while a job runs that watches. The horse is asked for its part by a signal
and answers over the shared page, as soon as its main thread is in Python; signals that come meanwhile are one more
snapshot together.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from types import FrameType
from typing import Any

from rqmem.errors import ConfigError
from rqmem.measure import linux, process_tree, procfs
from rqmem.profiling import directory as private
from rqmem.profiling.snapshots import Inside, Process, WorkerSnapshot, path_for, save
from rqmem.rq_names import Worker
from rqmem.store import codec
from rqmem.units import show_mb, to_mb
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse.self_report import stack_of
from rqmem.worker.horse.source_lines import described, described_growth
from rqmem.worker.horse.user_code import SNAPSHOT_SIGNAL
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.shared_memory import SharedPage

_ANSWER_SECONDS, _LATE_SECONDS = 2.0, 30.0
_POLL_SECONDS = 0.01
_MOST_PROCESSES = 50
_log = logging.getLogger("rqmem.worker")


class Snapshots:
    """Writes them for one worker, from `start` in its main thread to `stop`."""

    def __init__(self, worker: Worker, heart: Heart, pool: HorsePool) -> None:
        self._worker = worker
        self._heart = heart
        self._pool = pool
        self._asked, self._ask = os.pipe()
        os.set_blocking(self._ask, False)
        self._pid = os.getpid()
        self._wanted = 0
        self._before: Any = None
        self._thread = threading.Thread(target=self._serve, name="rqmem-snapshots", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._before = signal.signal(signal.SIGUSR2, self._on_signal)
        signal.siginterrupt(signal.SIGUSR2, False)

    def stop(self) -> None:
        before = self._before if callable(self._before) else signal.SIG_IGN  # one that comes late must not end us
        signal.signal(signal.SIGUSR2, before)
        os.close(self._ask)  # the thread reads the end of the file
        self._thread.join(timeout=1.0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:  # what was forked, RQ's scheduler say, has no thread for it
            with contextlib.suppress(OSError):
                os.write(self._ask, b"!")

    def _serve(self) -> None:
        while os.read(self._asked, 4096):
            try:
                self._write()
            except (OSError, ConfigError) as error:
                _log.warning("worker %s: no snapshot: %s", self._worker.name, error)
            except Exception:  # noqa: BLE001  the next one may do
                _log.exception("worker %s: no snapshot", self._worker.name)
        os.close(self._asked)

    def _write(self) -> None:
        at = time.time()
        path = path_for(private.located(self._pool.config.profile_dir), self._worker.name, at)
        page, horse_pid = self._pool.page, self._horse_pid()
        asked = self._ask_horse(page, horse_pid)
        inside = self._answer(page, horse_pid, _ANSWER_SECONDS) if asked else None
        snapshot = replace(self._from_outside(at, page), inside=inside)
        if inside is None and horse_pid:
            snapshot = replace(snapshot, why_not=_why_not(horse_pid, asked=asked))
        save(path, snapshot)
        _log.info("worker %s: snapshot: %s", self._worker.name, path)
        if inside is None and asked:
            late = self._answer(page, horse_pid, _LATE_SECONDS)
            if late is not None:
                why = f"The horse answered {time.time() - at:.1f} s after it was asked: until then it was in C code."
                save(path, replace(snapshot, inside=late, why_not=why))

    def _ask_horse(self, page: SharedPage, horse_pid: int) -> bool:
        if not horse_pid or not procfs.catches(horse_pid, SNAPSHOT_SIGNAL):  # after an exec it would end the job
            return False
        self._wanted += 1
        page.snapshot_wanted = self._wanted
        linux.tell_main_thread(horse_pid, SNAPSHOT_SIGNAL)
        return True

    def _answer(self, page: SharedPage, horse_pid: int, seconds: float) -> Inside | None:
        """What the horse says, within so long; None: nothing, or it has ended, or begun with another job."""
        deadline = time.monotonic() + seconds
        while page.snapshot_told != self._wanted:
            changed = page.snapshot_wanted != self._wanted or process_tree.is_zombie(horse_pid)
            if changed or time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
        try:
            inside = codec.from_json(Inside, page.snapshot_json)
        except ValueError:  # a new job has emptied the page
            return None
        return replace(
            inside,
            stack=[described(line) for line in inside.stack],
            threads=[(name, described(line)) for name, line in inside.threads],
        )

    def _horse_pid(self) -> int:
        return self._worker.horse_pid or self._pool.idle_pid

    def _from_outside(self, at: float, page: SharedPage) -> WorkerSnapshot:
        worker = self._worker
        running = self._heart.recorder.now() if self._heart.beating else None
        facts = [("process", f"{os.getpid()} on {os.uname().nodename}, queues {', '.join(worker.queue_names())}")]
        if running is None:
            facts.append(("job", "none: the worker is idle"))
            main = sys._current_frames().get(threading.main_thread().ident or 0)
            stack = [described(line) for line in stack_of(main)]
            return WorkerSnapshot(worker.name, at, facts, self._processes(), stack)
        place = f", at '{running.operation}'" if running.operation else ""
        facts += [
            ("job", f"{running.job} ({running.job_id}), queue {running.queue}, "
                    f"for {at - running.started_at:.1f} s{place}"),
            ("usage", f"{running.usage_mb:.1f} MB of {show_mb(running.limit_mb)} MB, peak {running.peak_mb:.1f} MB"),
            ("items done", f"{running.items_done:,}" if running.items_done else ""),
        ]  # fmt: skip
        return WorkerSnapshot(worker.name, at, facts, self._processes(), grew=described_growth(page))

    def _processes(self) -> list[Process]:
        own = os.getpid()
        roles = {own: "worker", self._horse_pid(): "horse"}
        roles |= dict.fromkeys(self._pool.known, "not of the job")
        found = [own, *process_tree.descendants(own)[: _MOST_PROCESSES - 1]]
        processes = []
        for pid in found:
            try:
                usage = procfs.read_usage(pid)
            except OSError:  # hidden
                processes.append(Process(pid, "?", 0.0, "hidden by /proc (hidepid), so not measured"))
                continue
            if usage is not None:
                whole = ["counted whole"] if usage.whole else []
                role = ", ".join(filter(None, [roles.get(pid, ""), *whole]))
                processes.append(Process(pid, procfs.read_command(pid), to_mb(usage.usage_bytes), role))
        return processes


def _why_not(horse_pid: int, *, asked: bool) -> str:
    """Why the horse said nothing, as far as the kernel tells."""
    state = _state(horse_pid)
    if not state:
        return "The horse has ended."
    if not asked:
        return f"The horse was not asked: it has no handler for it, as a job that has become another program ({state})."
    return (
        f"The horse's main thread ({state}) has not answered within {_ANSWER_SECONDS:.0f} s: it is in C code, where "
        f"Python's signals wait, or stopped. This file gets its answer if it comes within {_LATE_SECONDS:.0f} s more."
    )


def _state(pid: int) -> str:
    try:
        status = procfs.read_status(pid)
    except OSError:
        return ""
    found = re.search(r"^State:\s*(.*)$", status, re.MULTILINE)
    return found[1].strip() if found else ""
