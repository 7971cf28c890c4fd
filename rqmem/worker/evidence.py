"""What is written down about a job when it is stopped: its processes, its usage, and the lines where it grew.

Lines cost nothing while a job does not grow. Each time usage has grown by a step, the horse is asked where it is (a
signal; its handler writes one line to the shared page). The growth since the sample before is charged to that line. If
the horse was waiting by then, the growth may be of the lines before it, and the line is marked `AT_OR_BEFORE`.

What the job gives back is taken from the lines that grew last. So the lines of a job that works in chunks add up to
what its peak had grown by, and not to what all chunks took.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from rqmem.measure import procfs
from rqmem.units import to_mb

_SHOWN_PROCESSES = 8
_CURVE_SECONDS, _CURVE_STEP_SECONDS, _CURVE_POINTS = 10.0, 0.01, 30
_SHOWN_LINES = 5
_LEAST_BYTES = 2**20  # less of a line is not worth a row
AT_OR_BEFORE = "~"
"""Before a line: the horse may have left the line that grew and have begun to wait in this one."""


def tree(usage_by_pid: Mapping[int, int]) -> list[tuple[int, str, float]]:
    """Pid, command and MB of each process, largest first."""
    largest = sorted(usage_by_pid.items(), key=lambda each: -each[1])[:_SHOWN_PROCESSES]
    return [(pid, procfs.read_command(pid), to_mb(usage)) for pid, usage in largest]


class LastSeconds:
    """What a job used in its last seconds, in bytes. Times are of one monotonic clock."""

    def __init__(self, began_at: float, baseline_bytes: int) -> None:
        self._began_at = began_at
        most = int(_CURVE_SECONDS / _CURVE_STEP_SECONDS)
        self._readings: deque[tuple[float, int]] = deque([(began_at, baseline_bytes)], maxlen=most)

    def add(self, now: float, usage_bytes: int) -> None:
        """A reading; it is left out right after another one."""
        if now - self._readings[-1][0] >= _CURVE_STEP_SECONDS:
            self._readings.append((now, usage_bytes))

    def growth_start(self, now: float) -> tuple[float, int]:
        """When and from which usage the last growth began: the lowest reading."""
        recent = [reading for reading in self._readings if reading[0] >= now - _CURVE_SECONDS]
        return min(recent or [(self._began_at, 0)], key=lambda reading: reading[1])

    def curve(self, now: float) -> list[tuple[float, float]]:
        """Readings as (seconds before now, MB), thinned; the last one stays."""
        step = max(1, -(-len(self._readings) // _CURVE_POINTS))
        return [(round(now - at, 3), to_mb(usage)) for at, usage in list(self._readings)[::-1][::step][::-1]]


class Growth:
    """Growth of one job by line, up to its peak, in steps of ``step_bytes``. ``samples``: that were taken before."""

    def __init__(self, step_bytes: int, baseline_bytes: int, samples: int = 0) -> None:
        self._step = step_bytes
        self._held: list[tuple[str, int]] = []  # lines and what they grew by and still hold, in order
        self._highest = baseline_bytes
        self._at_peak: list[tuple[str, int]] = []
        self._accounted = baseline_bytes
        self._asked_at: int | None = None
        self._samples = samples
        self._waits: int | None = None

    def wants_sample(self, usage_bytes: int) -> bool:
        """Whether usage has grown by a step since the last sample; False while one is being waited for."""
        self._give_back(self._accounted - usage_bytes)
        return self._asked_at is None and usage_bytes - self._accounted >= self._step

    def asked(self, usage_bytes: int, waits: int | None) -> None:
        """A sample is asked for. ``waits``: how often the horse had begun to wait before; None: it waits now."""
        self._asked_at, self._waits = usage_bytes, waits

    def take(self, samples: int, line: str, waits: int) -> bool:
        """What the page says now: how many samples, the line of the last, and the waits by then. Whether it was new."""
        if self._asked_at is None or samples == self._samples:
            return False
        self._samples = samples
        self._held.append((line if waits == self._waits else AT_OR_BEFORE + line, self._asked_at - self._accounted))
        self._accounted, self._asked_at = self._asked_at, None
        if self._accounted > self._highest:
            self._highest, self._at_peak = self._accounted, self._held.copy()
        return True

    def _give_back(self, freed_bytes: int) -> None:
        self._accounted -= max(0, freed_bytes)
        while freed_bytes > 0 and self._held:
            line, grown = self._held.pop()
            if grown > freed_bytes:
                self._held.append((line, grown - freed_bytes))
            freed_bytes -= grown

    def lines(self) -> list[tuple[int, str]]:
        """Bytes and line, most first, which add up to no more than the peak. A line seen to grow needs no mark."""
        seen_to_grow = {line for line, _ in self._at_peak}
        charged: Counter[str] = Counter()
        for line, grown in self._at_peak:
            plain = line.removeprefix(AT_OR_BEFORE)
            charged[plain if plain in seen_to_grow else line] += grown
        return [(grown, line) for line, grown in charged.most_common(_SHOWN_LINES) if grown >= _LEAST_BYTES]
