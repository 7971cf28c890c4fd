"""Record what real work uses over time, for the simulation of the alert for growth in tests/unit/test_alert_curves.py.

Writes ``usage_curves.json`` there: name -> [[seconds, MB], ...], ten points a second while usage changes.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rqmem.measure import procfs
from rqmem.units import MB

TARGET = Path(__file__).parents[2] / "tests" / "unit" / "usage_curves.json"
SECONDS = 75.0
PAUSE_SECONDS = 0.1


def imports_a_library() -> None:
    """What each first job of a type does in a new horse."""
    import sklearn.cluster
    import sklearn.ensemble  # noqa: F401

    time.sleep(2)


def reads_a_file_in_chunks() -> None:
    """Waves: a chunk is read, worked on, freed."""
    with tempfile.NamedTemporaryFile("w+") as file:
        csv.writer(file).writerows([[number, "x" * 40] for number in range(200_000)])
        file.flush()
        for _ in range(6):
            file.seek(0)
            rows = list(csv.reader(file))
            time.sleep(0.5)
            del rows
            time.sleep(0.5)


def jumps_and_holds() -> None:
    """200 MB within half a second, held."""
    time.sleep(1)
    held = [bytearray(b"x") * (20 * MB) for _ in range(10)]
    time.sleep(SECONDS)
    del held


def leaks_slowly() -> None:
    """Some 90 MB a minute."""
    held = []
    while True:
        held.append(bytearray(b"x") * (MB // 2))
        time.sleep(0.33)


def stays_small() -> None:
    """Comes and goes below the threshold."""
    for _ in range(20):
        block = bytearray(b"x") * (30 * MB)
        time.sleep(0.3)
        del block
        time.sleep(0.3)


WORK: tuple[Callable[[], None], ...] = (
    imports_a_library, reads_a_file_in_chunks, jumps_and_holds, leaks_slowly, stays_small,
)  # fmt: skip


def main() -> None:
    curves = {work.__name__: recorded(work) for work in WORK}
    TARGET.write_text(json.dumps(curves, separators=(",", ":")) + "\n")
    for name, points in curves.items():
        print(f"{name:<24} {len(points):>4} points, {max(mb for _, mb in points):.0f} MB at most")


def recorded(work: Callable[[], None]) -> list[tuple[float, float]]:
    """One of them, in a fork of its own."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    points: list[tuple[float, float]] = []
    began = time.monotonic()
    while (now := time.monotonic() - began) < SECONDS and os.waitpid(pid, os.WNOHANG) == (0, 0):
        rollup = procfs.read_rollup(pid)
        used_mb = round(rollup.usage_bytes / MB, 1) if rollup is not None else 0.0
        if used_mb and (not points or used_mb != points[-1][1]):  # 0: it has just ended
            points.append((round(now, 2), used_mb))
        time.sleep(PAUSE_SECONDS)
    if now >= SECONDS:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [*points, (round(now, 2), points[-1][1])]


if __name__ == "__main__":
    main()
