"""A plugin whose hooks do what a job's argument ``hooks`` says, and tell in Redis that they were called."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from rq.job import Job

from rqmem import events, hooks, memory_aware

CALLED = "tests:hooks"
_last: Job | None = None


def greedy() -> None:
    rows: list[Any] = []
    while True:
        rows.append([str(number) for number in range(10_000)])


def greedy_in_c() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(2**30))
    libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(2**30))


def stubborn() -> None:
    rows: list[Any] = []
    while True:
        try:
            rows.append(bytearray(2**20))
        except BaseException:  # noqa: S110
            pass


def fork_and_return() -> None:
    if os.fork() == 0:
        return
    os.wait()


MISBEHAVIOUR: dict[str, Callable[[], Any]] = {
    "raise": lambda: {}["missing"],
    "exit": lambda: sys.exit(3),
    "leave": lambda: os._exit(0),
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(1000),
    "breach": greedy,
    "breach in C": greedy_in_c,
    "swallow the breach": stubborn,
    "fork": fork_and_return,
    "run a job": memory_aware()(lambda: 1),
}


def act(name: str, job: Job) -> None:
    job.connection.rpush(CALLED, f"{name} {job.id}")
    how = job.kwargs.get("hooks", {}).get(name)
    if how is not None:
        MISBEHAVIOUR[how]()


@hooks.horse_started
def start() -> None:
    if os.environ.get("TEST_HOOK_AT_START"):
        MISBEHAVIOUR[os.environ["TEST_HOOK_AT_START"]]()


@hooks.before_job
def before(job: Job) -> None:
    global _last
    _last = job
    act("before", job)


@hooks.after_job
def after_the_others(job: Job, outcome: str) -> None:
    job.connection.rpush(CALLED, f"last {job.id} {outcome}")


@hooks.after_job
def after(job: Job, outcome: str) -> None:
    act("after", job)


@hooks.horse_ending
def end() -> None:
    assert _last is not None
    act("ending", _last)


@hooks.on(events.HookFailed)
def hear(event: events.HookFailed) -> None:
    if "on" in os.environ.get("TEST_HOOK_ON", ""):
        MISBEHAVIOUR[os.environ["TEST_HOOK_ON"].partition(" ")[2]]()
