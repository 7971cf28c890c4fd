"""Which lines of code a job's memory grew at, as far as samples tell. Costs nothing while it does not grow.

Each time usage has grown by a step, the horse is asked where it is (a signal; its handler writes one line
to the shared page); the growth since the sample before is charged to that line.
"""

from __future__ import annotations

from collections import Counter

SHOWN_LINES = 5


class Growth:
    """Growth of one job by line, in steps of ``step_bytes``."""

    def __init__(self, step_bytes: int) -> None:
        self._step = step_bytes
        self.by_line: Counter[str] = Counter()
        self._accounted: int | None = None
        self._asked_at: int | None = None
        self._samples = 0

    def wants_sample(self, usage_bytes: int) -> bool:
        """Whether usage has grown by a step since the last sample; False while one is being waited for."""
        if self._accounted is None or usage_bytes < self._accounted:
            self._accounted = usage_bytes
        if self._asked_at is not None or usage_bytes - self._accounted < self._step:
            return False
        self._asked_at = usage_bytes
        return True

    def take(self, samples: int, line: str) -> bool:
        """What the page says now: how many samples there were, and the line of the last. Whether that was new."""
        if self._asked_at is None or samples == self._samples or self._accounted is None:
            return False
        self._samples = samples
        self.by_line[line] += self._asked_at - self._accounted
        self._accounted, self._asked_at = self._asked_at, None
        return True

    def lines(self) -> list[tuple[int, str]]:
        """Bytes and line, most first."""
        return [(grown, line) for line, grown in self.by_line.most_common(SHOWN_LINES)]
