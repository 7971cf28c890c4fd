"""What jobs of each type need, by the runs that one worker has seen. No I/O, no clock.

A type's first run in a horse grows by what it imports as well; later ones there do not. So both are remembered.
A need that is no longer seen fades: one large run does not cost the runs after it their warm horse for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

_FADES = 16  # a need comes down by a sixteenth of the difference with each smaller run
_MOST_TYPES = 1000
_TIMES_TO_GROW = 8


@dataclass
class Known:
    """Of one job type. ``None``: no such run was seen.

    Attributes:
        first_bytes: growth of a run in a horse that had not run the type before.
        again_bytes: growth of a later one.
        declared_bytes: the ceiling that the last run declared; 0: none.
        threads: the most that the type has left in one horse.
        growths: in how many horses it left more than ever before.
    """

    first_bytes: int | None = None
    again_bytes: int | None = None
    declared_bytes: int = 0
    threads: int = 0
    growths: int = 0

    @property
    def threads_allowed(self) -> int:
        """How many threads it may leave in one horse by runs after its first there; 0 where it goes on growing."""
        return self.threads if self.growths < _TIMES_TO_GROW else 0


class Needs:
    """Of all types that one worker has run; those not seen for longest are forgotten beyond a thousand."""

    def __init__(self) -> None:
        self._types: dict[str, Known] = {}

    def of(self, job: str) -> Known:
        """What is known of a type; changed in place by `ran` and `left_threads`."""
        known = self._types.pop(job, None) or Known()
        self._types[job] = known  # the newest last
        if len(self._types) > _MOST_TYPES:
            del self._types[next(iter(self._types))]
        return known

    def ran(self, job: str, grown_bytes: int, declared_bytes: int, *, first: bool) -> None:
        """A run that did not breach grew by this. ``first``: it is the first of its type in its horse."""
        known = self.of(job)
        known.declared_bytes = declared_bytes
        if first:
            known.first_bytes = _faded(known.first_bytes, grown_bytes)
        else:
            known.again_bytes = _faded(known.again_bytes, grown_bytes)

    def left_threads(self, job: str, count: int) -> bool:
        """A type has left this number of threads in a horse. Returns whether to report it: the first time."""
        known = self.of(job)
        if count <= known.threads:
            return False
        was, known.threads = known.threads, count
        known.growths += was > 0
        return was == 0


def _faded(known: int | None, grown: int) -> int:
    if known is None or grown >= known:
        return max(0, grown)
    return known - (known - grown) // _FADES
