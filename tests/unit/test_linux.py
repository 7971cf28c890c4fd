"""Calls of Linux that Python does not offer, on real processes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from rqmem.measure import linux
from rqmem.testing import wait_until
from rqmem.worker.horse.user_code import BREACH_SIGNAL

BLOCKED_IN_THE_MAIN_THREAD = f"""
import signal, sys, threading
told = threading.Event()
signal.signal({BREACH_SIGNAL}, lambda *_: None)
other = threading.Thread(target=told.wait, daemon=True)
other.start()
signal.pthread_sigmask(signal.SIG_BLOCK, {{ {BREACH_SIGNAL} }})
print("ready", flush=True)
sys.stdin.read()
"""


def pending(pid: int, of: str) -> bool:
    """Whether the breach signal waits for the main thread (``SigPnd``) or for whichever comes (``ShdPnd``)."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith(f"{of}:")]
    return bool(int(mask, 16) >> (BREACH_SIGNAL - 1) & 1)


def test_a_signal_for_the_main_thread_goes_to_no_other() -> None:
    """Beside a thread of C's a main thread of Python 3.11 that another got the signal for heard of it 100 ms late."""
    command = [sys.executable, "-c", BLOCKED_IN_THE_MAIN_THREAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            linux.tell_main_thread(child.pid, BREACH_SIGNAL)
            wait_until(lambda: pending(child.pid, "SigPnd"))
            assert not pending(child.pid, "ShdPnd")
        finally:
            child.kill()


def test_a_process_that_has_ended_is_told_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    linux.tell_main_thread(child.pid, 0)  # no signal: its pid may be another's by now


@pytest.mark.parametrize(("code", "well"), [(0, True), (3, False)])
def test_the_end_of_a_child_is_seen_before_and_after_it_is_reaped(code: int, well: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"]) as child:
        assert ends(child.pid)
        assert linux.ended_well(child.pid) is well
        child.wait()
        assert ends(child.pid)
        assert linux.ended_well(child.pid) is None


def ends(pid: int) -> bool:
    """Waits for it."""
    ended = linux.open_exit(pid)
    try:
        return select.select([ended], [], [], 20)[0] == [ended]
    finally:
        os.close(ended)
