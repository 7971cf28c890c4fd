"""Record how adversaries grow, for the simulation in tests/unit/test_simulation.py: run it on a quiet machine.

Writes ``growth_curves.json`` there: name -> [[milliseconds, MB], ...], a point for each MB.
"""

from __future__ import annotations

import json
import os
import signal
import time
from importlib import import_module
from pathlib import Path

from rqmem.measure import procfs
from rqmem.units import MB
from rqmem.worker import linux

NAMES = ("lists", "dicts", "blocks", "memset_in_c", "huge_pages", "populated_mmap", "calm_then_burst", "slow_leak")
TARGET = Path(__file__).parents[2] / "tests" / "unit" / "growth_curves.json"
UNTIL_MB = 600
SECONDS = 10.0
PAUSE_SECONDS = 0.0001


def main() -> None:
    curves = {name: recorded(name) for name in NAMES}
    TARGET.write_text(json.dumps(curves, separators=(",", ":")) + "\n")
    for name, points in curves.items():
        print(f"{name:<18} {len(points):>4} points, {points[-1][1]} MB in {points[-1][0]:.0f} ms")


def recorded(name: str) -> list[tuple[float, int]]:
    """One adversary, in a fork of its own, until it is large enough."""
    module = import_module("rqmem.testing.adversaries")
    pid = os.fork()
    if pid == 0:
        getattr(module, name)()
        os._exit(0)
    points: list[tuple[float, int]] = []
    statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    began = time.monotonic()
    with linux.urgent():
        while (now := time.monotonic() - began) < SECONDS:
            used_mb = procfs.parse_resident_pages(os.pread(statm, 128, 0)) * procfs.PAGE_BYTES // MB
            if not points or used_mb != points[-1][1]:
                points.append((round(1000 * now, 2), used_mb))
            if used_mb > UNTIL_MB:
                break
            time.sleep(PAUSE_SECONDS)
    os.close(statm)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return points


if __name__ == "__main__":
    main()
