"""Growth spread over threads and processes. All together end at ``mb`` MB, and by themselves within seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from rqmem.testing.adversaries.objects import blocks
from rqmem.units import MB

_PROGRAM = "import time\nheld = [bytearray(2**20) for _ in range({mb})]\ntime.sleep(3)"
_HOG = "import time\nend = time.monotonic() + 10\nwhile time.monotonic() < end: pass"
_HOGS = 4
_GENERATIONS = 6  # of forks: 2**6 processes
_LINGER_SECONDS = 3.0


def four_threads(mb: int = 1500) -> None:
    """Four threads at once, the main thread waits."""
    threads = [threading.Thread(target=blocks, args=(mb // 4,), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def thread_pool(mb: int = 1500) -> None:
    """A ThreadPoolExecutor: leaving its block waits for all threads."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(_hold, mb // 4)


def a_subprocess(mb: int = 1500) -> None:
    """A program it runs; the job only waits."""
    subprocess.run([sys.executable, "-c", _PROGRAM.format(mb=mb)], check=False)


def a_new_session(mb: int = 1500) -> None:
    """A program in a session of its own (setsid)."""
    subprocess.run([sys.executable, "-c", _PROGRAM.format(mb=mb)], start_new_session=True, check=False)


def a_daemon(mb: int = 1500) -> None:
    """A daemon: two forks and a setsid away."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _end_after(mb)
        os._exit(0)
    os.wait()
    time.sleep(2 * _LINGER_SECONDS)


def fork_bomb(mb: int = 1500) -> None:
    """64 forked processes, all growing."""
    horse = os.getpid()
    try:
        for _ in range(_GENERATIONS):
            os.fork()
        _hold(mb // 2**_GENERATIONS, pause_seconds=0.005)
    finally:
        if os.getpid() != horse:
            os._exit(0)


def beside_cpu_hogs(mb: int = 1500) -> None:
    """Grows while four processes of its own take all the CPU."""
    hogs = [subprocess.Popen([sys.executable, "-c", _HOG]) for _ in range(_HOGS)]
    time.sleep(0.2)
    try:
        blocks(mb)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def another_program(mb: int = 1500) -> None:
    """exec: the process becomes another program, none of our handlers is left."""
    os.execv(sys.executable, [sys.executable, "-c", _PROGRAM.format(mb=mb)])


def _hold(mb: int, pause_seconds: float = 0) -> None:
    held = []
    for _ in range(mb):
        held.append(bytearray(MB))
        time.sleep(pause_seconds)
    time.sleep(_LINGER_SECONDS)


def _end_after(mb: int) -> None:
    try:
        _hold(mb)
    finally:
        os._exit(0)
