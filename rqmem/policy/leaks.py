"""Whether a job type leaks: whether its runs leave more and more in a warm horse. Pure.

What one run leaves for good is known where the horse has collected and trimmed right before and right after it: such a
run is a probe (`worth_a_probe` says when). Other runs are only counted, so other types in between change nothing. The
first run of a type in each horse is left out: it imports, connects and fills caches.

A leak is growth that goes on in one horse: much in sum (what probes left, for as many runs as there were), more than
chance, in each quarter of the probes, and in the later half as much as in the earlier. A cache that fills is
no leak once it stops or slows down; before that, only its size differs. If no horse lives long enough, several horses
together show a leak: a fast one if each of the last runs left about the same, a slow one if it goes on in each horse at
the same pace, and to its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rqmem.units import MB
from rqmem.values import dataclass, field

FIRST_RUNS = 1
"""Of a type in a horse; what they leave is no leak."""
LEAST_PROBES = 8
LEAST_FRACTION, LEAST_BYTES = 0.125, 40 * MB
"""In sum: this fraction of the ceiling, or this size. A horse that keeps a fifth of the ceiling is replaced anyway."""
STEADY_FRACTION = 0.25
"""The probes of each quarter left at least this fraction of a quarter of all."""
LASTING_FRACTION = 0.7
"""The later half of the probes left at least this fraction of what the earlier half left."""
SURE_ERRORS = 5.0
"""The average of the blocks is at least this number of standard errors above 0: a random walk is no leak."""
FAST_PROBES = 6
REGULAR_FRACTION = 0.5
"""Over several horses: each of the last `FAST_PROBES` left at least this fraction of their mean."""
PROBING = ((24 * MB, 0.1), (8 * MB, 0.02))
"""Growth of a horse, and the fraction of its working time that it may then spend on probes, besides free ones."""
FREE_SECONDS_PER_BYTE = 0.25 / (8 * MB)
"""Free time for probes, by growth of the horse: where runs are short, its life is too short to earn any."""
QUIET_PROBES, QUIET_BYTES, QUIET_RUNS = 4, 4096, 8
"""If at least this number of probes left less than this size on average, only one run in `QUIET_RUNS` is probed."""
LASTING_OVER_HORSES = 0.85
LASTING_IN_EACH = 0.8
"""Over several horses: in at most one of ten, the later half of the probes left less than this fraction of what the
earlier half left, as where a cache fills."""
_KEPT_BLOCKS = 64
_KEPT_HORSES = 48


@dataclass(frozen=True)
class Probed:
    """Of one job type in one horse: probes, what they left in sum, and runs since the last of them."""

    probes: int = 0
    left_bytes: int = 0
    since: int = 0

    @property
    def quiet(self) -> bool:
        """It has left too little so far for a closer look."""
        return self.probes >= QUIET_PROBES and self.left_bytes < QUIET_BYTES * self.probes

    def after(self, left_bytes: int | None) -> Probed:
        """After one more run; None: that was no probe."""
        if left_bytes is None:
            return replace(self, since=self.since + 1)
        return Probed(self.probes + 1, self.left_bytes + left_bytes)


def worth_a_probe(grown_bytes: int, spent_seconds: float, worked_seconds: float, probed: Probed) -> bool:
    """Whether a horse should look closely at the next run of a job type.

    ``grown_bytes``: beyond what the first runs of its job types left. The seconds: on probes, and on jobs, so far.
    """
    if probed.quiet and probed.since < QUIET_RUNS:
        return False
    free = FREE_SECONDS_PER_BYTE * grown_bytes
    fraction = next((fraction for least_bytes, fraction in PROBING if grown_bytes >= least_bytes), None)
    return fraction is not None and spent_seconds < free + fraction * worked_seconds


@dataclass(frozen=True)
class EndedHorse:
    """What a job type did in a horse that is gone: runs, and bytes a run by the earlier and the later probes."""

    runs: int
    earlier: float
    later: float


@dataclass(frozen=True)
class TypeProbes:
    """Probes of one job type in the present horse.

    Attributes:
        blocks: what probes left, in bytes, oldest first; each is the sum of ``width`` probes.
        filled: probes in the last block.
        last: what the last probes left, also in earlier horses.
        before: the last horses before in which this type was probed enough.
    """

    runs: int = 0
    blocks: tuple[int, ...] = ()
    width: int = 1
    filled: int = 1
    last: tuple[int, ...] = ()
    before: tuple[EndedHorse, ...] = ()

    @property
    def probes(self) -> int:
        return self.width * (len(self.blocks) - 1) + self.filled if self.blocks else 0

    def gone(self) -> tuple[EndedHorse, ...]:
        """The horses before, once this one is gone."""
        half = len(self.blocks) // 2
        if self.probes < LEAST_PROBES or not half:
            return self.before
        earlier = sum(self.blocks[:half]) / (half * self.width)
        later = sum(self.blocks[half:]) / (self.probes - half * self.width)
        return (*self.before, EndedHorse(self.runs, earlier, later))[-_KEPT_HORSES:]

    def probed(self, left_bytes: int) -> TypeProbes:
        """With one probe more; older ones are summed by twos when there are many."""
        last = (*self.last, left_bytes)[-FAST_PROBES:]
        blocks, width = self.blocks, self.width
        if blocks and self.filled < width:
            return replace(self, blocks=(*blocks[:-1], blocks[-1] + left_bytes), filled=self.filled + 1, last=last)
        if len(blocks) == _KEPT_BLOCKS:
            blocks = tuple(blocks[at] + blocks[at + 1] for at in range(0, _KEPT_BLOCKS, 2))
            width *= 2
        return replace(self, blocks=(*blocks, left_bytes), width=width, filled=1, last=last)


@dataclass(frozen=True)
class Leaks:
    types: Mapping[str, TypeProbes] = field(default_factory=dict)

    def in_new_horse(self) -> Leaks:
        """What is known when a new horse begins: imports and caches begin again."""
        return Leaks({name: TypeProbes(last=known.last, before=known.gone()) for name, known in self.types.items()})


@dataclass(frozen=True)
class Leak:
    """A job type that keeps ``bytes_per_run`` of each run, as probes among ``runs`` runs have shown."""

    job: str
    bytes_per_run: float
    runs: int


def observe(leaks: Leaks, job: str, left_bytes: int | None, ceiling_bytes: int) -> tuple[Leak | None, Leaks]:
    """One more run: whether its type is found to leak, and what is known after it. Found once, it begins anew.

    ``left_bytes``: what the run left for good, where it was a probe.
    """
    known = leaks.types.get(job, TypeProbes())
    known = replace(known, runs=known.runs + 1)
    found = None
    if known.runs > FIRST_RUNS and left_bytes is not None:
        known = known.probed(left_bytes)
        least_bytes = min(LEAST_BYTES, LEAST_FRACTION * ceiling_bytes)
        found = judge(job, known, least_bytes) or judge_horses(job, known.before, least_bytes)
    if found is not None:
        known = TypeProbes(runs=known.runs)
    return found, Leaks({**leaks.types, job: known})


def ran(leaks: Leaks, job: str, runs: int) -> Leaks:
    """Count ``runs`` more runs, none of them a probe."""
    known = leaks.types.get(job, TypeProbes())
    return Leaks({**leaks.types, job: replace(known, runs=known.runs + runs)})


def judge(job: str, known: TypeProbes, least_bytes: float) -> Leak | None:
    """Whether what the probes left goes on growing, and is that much."""
    mean = sum(known.last) / FAST_PROBES
    if len(known.last) == FAST_PROBES and sum(known.last) >= least_bytes and min(known.last) >= REGULAR_FRACTION * mean:
        return Leak(job, mean, known.runs)
    blocks, count = known.blocks, len(known.blocks)
    if known.probes < LEAST_PROBES:
        return None
    total = sum(blocks)
    if total / known.probes * known.runs < least_bytes:
        return None
    error = math.dist(blocks, [total / count] * count) / math.sqrt((count - 1) * count)
    if total / count < SURE_ERRORS * error:
        return None
    quarters = [sum(blocks[count * at // 4 : count * (at + 1) // 4]) for at in range(4)]
    if min(quarters) < STEADY_FRACTION * total / 4:
        return None
    if quarters[2] + quarters[3] < LASTING_FRACTION * (quarters[0] + quarters[1]):
        return None
    return Leak(job, total / known.probes, known.runs)


def judge_horses(job: str, horses: tuple[EndedHorse, ...], least_bytes: float) -> Leak | None:
    """Whether a type went on growing in each of several horses, to the end of each."""
    if len(horses) < 3:
        return None
    runs = sum(each.runs for each in horses)
    rate = sum(each.runs * (each.earlier + each.later) / 2 for each in horses) / runs
    if rate * runs < least_bytes:
        return None
    if any(min(each.earlier, each.later) < REGULAR_FRACTION * rate for each in horses):
        return None
    if sum(each.later < LASTING_IN_EACH * each.earlier for each in horses) > len(horses) // 10:
        return None
    later = sum(each.runs * each.later for each in horses)
    lasts = later >= LASTING_OVER_HORSES * sum(each.runs * each.earlier for each in horses)
    return Leak(job, rate, runs) if lasts else None
