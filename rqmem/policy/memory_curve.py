"""The memory of one execution over its whole time, in a bounded number of points. Pure."""

from __future__ import annotations

POINTS = 96
_FIRST_STEP_SECONDS = 0.05


class MemoryCurve:
    """The highest reading of each step since the beginning; when all points are used, ``step_seconds`` is doubled."""

    def __init__(self) -> None:
        self.step_seconds = _FIRST_STEP_SECONDS
        self._highest: list[float] = []
        self._last = 0.0

    def add(self, seconds: float, mb: float) -> None:
        """A reading ``seconds`` after the beginning. A step without one has the one before it, or the first."""
        step = max(0, int(seconds / self.step_seconds))
        if step >= POINTS:
            step = self._double_until(step)
        before = self._last if self._highest else mb
        self._highest += [before] * (step - len(self._highest))
        if len(self._highest) == step:
            self._highest.append(mb)
        else:
            self._highest[step] = max(self._highest[step], mb)
        self._last = mb

    def points(self, seconds: float) -> tuple[float, ...]:
        """The highest MB of each step until the end of the execution, ``seconds`` after its beginning."""
        if self._highest:
            self.add(seconds, self._last)
        return tuple(round(mb, 1) for mb in self._highest)

    def _double_until(self, step: int) -> int:
        """Double the step until that step is among the points; returns its number then."""
        while step >= POINTS:
            pairs = range(0, len(self._highest), 2)
            self._highest = [max(self._highest[first : first + 2]) for first in pairs]
            self.step_seconds *= 2
            step //= 2
        return step
