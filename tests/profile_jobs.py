"""Jobs that grow at lines that can be named, and wait where a test wants to look at them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

from rqmem.measure.trim import trim
from rqmem.testing import wait_until
from rqmem.worker.horse import user_code
from rqmem.worker.shared_memory import SharedPage
from tests.sample_jobs import redis


class Row:
    """A kind of object of our own."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"row number {number} of many"


def fit_with(megabytes: int) -> None:
    """The line that is named goes on until the worker, which may be slow, has asked for it. Of 1 MB it never asks."""
    page = page_of_this_job()
    before = page.samples  # also those of earlier jobs
    held = [bytearray(2**20) for _ in range(megabytes)], wait_until(lambda: page.samples > before or megabytes == 1)
    del held


def fit_again_and_again(megabytes: int, times: int) -> None:
    """As chunks do: each takes as much as the one before, and gives it back."""
    page = page_of_this_job()
    for _ in range(times):
        samples = page.samples
        held = [bytearray(2**20) for _ in range(megabytes)], wait_until(partial(_sampled, page, samples))
        del held
        trim()  # else a small object at the end of the heap may keep all of it
        wait_until(lambda: page.usage_bytes < megabytes * 2**20)


def _sampled(page: SharedPage, before: int) -> bool:
    return page.samples > before


def fit_until_seen(megabytes: int) -> int:
    """Holds it until the worker has read so much."""
    held = [bytearray(2**20) for _ in range(megabytes)]
    page = page_of_this_job()
    wait_until(lambda: page.peak_bytes >= megabytes * 2**20)
    return len(held)


def fit_slowly(path: str, megabytes: int = 64) -> None:
    page = page_of_this_job()

    def most_is_known() -> bool:  # what is found later is the next line's
        return sum(mb for mb, _ in page.grew) > 0.6 * megabytes  # the job grows by some MB more than these

    held = [bytearray(2**20) for _ in range(megabytes)], wait_until(most_is_known)  # the line that is named
    wait_for(path)
    del held


def grow_at_three_lines() -> None:
    """Each line goes on until the worker, which may be slow, has asked for it."""
    page = page_of_this_job()
    before = page.samples
    first = [[0] * 1000 for _ in range(8_000)], wait_until(lambda: page.samples > before)
    asked = page.samples
    second = [[0] * 1000 for _ in range(12_000)], wait_until(lambda: page.samples > asked)
    third = [[0] * 1000 for _ in range(400_000)]
    del first, second, third


def wait_after_growing() -> None:
    """Is asked where it is while it grows, and answers from the line where it has waited since."""
    page = page_of_this_job()
    signal.pthread_sigmask(signal.SIG_BLOCK, [user_code.SAMPLE_SIGNAL])
    before = page.samples
    held = [bytearray(2**20) for _ in range(24)]
    wait_until(lambda: user_code.SAMPLE_SIGNAL in signal.sigpending())
    time.sleep(0.01)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [user_code.SAMPLE_SIGNAL]), wait_until(lambda: page.samples > before)
    del held


def page_of_this_job() -> SharedPage:
    here = user_code.current()
    assert here is not None
    return here.page


def hold_rows(path: str, count: int = 60_000) -> int:
    rows = [Row(number) for number in range(count)]
    wait_for(path, "ready")
    return len(rows)


class SlowToPickle:
    """RQ pickles it while it commits."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, str]:
        Path(f"{self.path}-ready").touch()  # there is no job any more that knows its Redis
        wait_for(self.path)
        return {"path": self.path}


def slow_to_commit(path: str) -> SlowToPickle:
    return SlowToPickle(path)


def wait_for(path: str, key: str = "") -> None:
    """Sets the key, if there is one, when it waits."""
    if key:
        redis().set(key, 1)
    while not Path(path).exists():  # the line where it waits
        time.sleep(0.01)


def lock_in_c(path: str) -> str:
    with Path(path).open() as file:
        ctypes.CDLL(None).flock(file.fileno(), fcntl.LOCK_EX)  # no step of Python's until somebody gives the lock up
    return "locked"


def grow_beyond() -> None:
    held = []
    while True:
        held.append([bytearray(1000) for _ in range(1000)])


def grow_and_be_killed() -> None:
    held = [bytearray(2**20) for _ in range(40)]
    os.kill(os.getpid(), signal.SIGKILL)
    held.clear()


def grow_in_threads(megabytes: int) -> int:
    held: list[bytearray] = []

    def fill() -> None:
        held.extend(bytearray(2**20) for _ in range(megabytes // 2))

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(held)


def allocate_often(count: int) -> int:
    kept = 0
    for number in range(count):
        kept += len(bytearray(1000 + number % 50)) + len(
            bytearray(5000 + number % 77)  # another line: each is a record of its own in a capture
        )
    return kept
