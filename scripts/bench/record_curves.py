"""Record how processes use memory over time, for simulations in tests/unit. Run it on a quiet machine; ten minutes.

``growth_curves.json`` is of adversaries (test_simulation.py): name -> [[milliseconds, MB], ...], a point for each MB.
``usage_curves.json`` is of real work (test_alert_curves.py): name -> [[seconds, MB], ...], ten points a second while
usage changes.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rqmem.measure import linux, procfs
from rqmem.testing import adversaries
from rqmem.units import MB

FOLDER = Path(__file__).parents[2] / "tests" / "unit"
ADVERSARIES = (
    "lists", "dicts", "blocks", "memset_in_c", "huge_pages", "populated_mmap", "calm_then_burst", "slow_leak",
)  # fmt: skip
GROWTH_SECONDS, GROWTH_PAUSE_SECONDS, GROWTH_UNTIL_MB = 10.0, 0.0001, 600
USAGE_SECONDS, USAGE_PAUSE_SECONDS = 75.0, 0.1

Curve = list[tuple[float, float]]


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
    time.sleep(USAGE_SECONDS)
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


WORK = (imports_a_library, reads_a_file_in_chunks, jumps_and_holds, leaks_slowly, stays_small)


def main() -> None:
    growth = {name: growth_of(getattr(adversaries, name)) for name in ADVERSARIES}
    usage = {work.__name__: usage_of(work) for work in WORK}
    for file, unit, curves in (("growth_curves.json", "ms", growth), ("usage_curves.json", "s", usage)):
        (FOLDER / file).write_text(json.dumps(curves, separators=(",", ":")) + "\n")
        for name, points in curves.items():
            most_mb = max(mb for _, mb in points)
            print(f"{name:<24} {len(points):>4} points, {most_mb:.0f} MB at most, {points[-1][0]:.0f} {unit}")


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """The id of a process that does the work, until the block is left."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def growth_of(work: Callable[[], object]) -> Curve:
    """Resident MB, until there are enough."""
    points: Curve = []
    with forked(work) as pid, Path(f"/proc/{pid}/statm").open("rb", buffering=0) as statm, linux.urgent():
        began = time.monotonic()
        while (now := time.monotonic() - began) < GROWTH_SECONDS:
            used_mb = procfs.parse_resident_pages(os.pread(statm.fileno(), 128, 0)) * procfs.PAGE_BYTES // MB
            if not points or used_mb != points[-1][1]:
                points.append((round(1000 * now, 2), used_mb))
            if used_mb > GROWTH_UNTIL_MB:
                break
            time.sleep(GROWTH_PAUSE_SECONDS)
    return points


def usage_of(work: Callable[[], object]) -> Curve:
    """Usage as ceilings count it, until the work ends."""
    points: Curve = []
    with forked(work) as pid:
        began = time.monotonic()
        while (now := time.monotonic() - began) < USAGE_SECONDS and (rollup := procfs.read_usage(pid)):
            used_mb = round(rollup.usage_bytes / MB, 1)
            if used_mb and (not points or used_mb != points[-1][1]):  # 0: it has just ended
                points.append((round(now, 2), used_mb))
            time.sleep(USAGE_PAUSE_SECONDS)
    return [*points, (round(now, 2), points[-1][1])]


if __name__ == "__main__":
    main()
