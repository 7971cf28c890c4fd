"""Memory of the machine that the monitor runs on, and how hard it presses. Parsing apart from reading."""

from __future__ import annotations

import os
from pathlib import Path

from rqmem.measure import machine
from rqmem.units import to_mb
from rqmem.values import dataclass


@dataclass(frozen=True)
class Pressure:
    """Pressure stall information (PSI): percent of the time that tasks waited for memory.

    Attributes:
        some_10, some_60: at least one task, over the last 10 and 60 seconds.
        full_10, full_60: all tasks that had something to do, at once.
    """

    some_10: float
    some_60: float
    full_10: float
    full_60: float


@dataclass(frozen=True)
class System:
    """The machine's memory. Sizes in MB.

    Attributes:
        available_mb: what can be had without swapping.
        pressure: None: this kernel does not tell, or it is switched off (``psi=1`` at boot switches it on).
    """

    host: str
    total_mb: float
    available_mb: float
    swap_total_mb: float
    swap_used_mb: float
    pressure: Pressure | None

    @property
    def used_mb(self) -> float:
        return round(self.total_mb - self.available_mb, 1)

    @property
    def used_percentage(self) -> float:
        return round(100 * self.used_mb / self.total_mb, 1) if self.total_mb else 0.0


def parse_pressure(text: str) -> Pressure | None:
    """What ``/proc/pressure/memory`` says; None where it is not as the kernel writes it."""
    figures = machine.parse_pressure(text)
    try:
        return Pressure(*(figures[f"{kind} {name}"] for kind in ("some", "full") for name in ("avg10", "avg60")))
    except KeyError:
        return None


def read_system() -> System:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return System(
        host=os.uname().nodename,
        total_mb=to_mb(memory.total),
        available_mb=to_mb(memory.available),
        swap_total_mb=to_mb(swap.total),
        swap_used_mb=to_mb(swap.used),
        pressure=parse_pressure(machine.read_text(Path("/proc/pressure/memory")) or ""),
    )
