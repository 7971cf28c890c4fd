"""What is expected of each mechanism, and the line that says what was found. Pure: figures in, a verdict out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rqmem.config.settings import Config
from rqmem.events import Breach
from rqmem.policy.alert_rules import CEILING, SPLIT, USAGE
from rqmem.store.execution_records import RunRecord
from rqmem.units import show_mb

TOLERANCE_MB = 4.0  # between what a job allocated and what is read: the interpreter's own ups and downs
COLLECTED_FRACTION = 0.9
ALLOWED_MB = Config.reserve_mb  # above the ceiling, until the kill


@dataclass(frozen=True)
class Verdict:
    """Whether a mechanism did what it is for, and the figures to show for it."""

    mechanism: str
    holds: bool
    figures: str

    @property
    def line(self) -> str:
        return f"{self.mechanism:<11} {'ok' if self.holds else 'FAILED':<7} {self.figures}"


def tracking(held_mb: float, seen: tuple[float, float, float], peak_mb: float) -> Verdict:
    """``seen``: MB before, while ``held_mb`` were held, and after; ``peak_mb``: the journal's."""
    before, while_held, after = seen
    right = abs(while_held - before - held_mb) <= TOLERANCE_MB and abs(after - before) <= TOLERANCE_MB
    remembered = while_held - TOLERANCE_MB <= peak_mb <= while_held + TOLERANCE_MB
    figures = (
        f"{show_mb(held_mb)} MB held: {before:.1f} -> {while_held:.1f} -> {after:.1f} MB; peak in the journal "
        f"{peak_mb:.1f} MB"
    )
    return Verdict("tracking", right and remembered, figures)


def collection(left_mb: float, freed_mb: float) -> Verdict:
    """``left_mb`` MB were left in unreachable cycles, and ``freed_mb`` of them were freed."""
    holds = freed_mb >= COLLECTED_FRACTION * left_mb
    return Verdict("collection", holds, f"{freed_mb:.1f} MB freed of {show_mb(left_mb)} MB in cycles")


def ceiling(status: str, error: str, breach: Breach | None, next_result: object) -> Verdict:
    """How a job ended that grows without end, and what the next job on its worker returned."""
    if breach is None:
        return Verdict("ceiling", False, f"the job {status} and was not stopped for its memory: {error or 'no error'}")
    above = breach.peak_mb - breach.limit_mb
    named = status == "failed" and "MemoryLimitExceeded" in error
    after = "the next job ran" if next_result == "ran" else f"the next job returned {next_result!r}"
    figures = (
        f"stopped at {show_mb(breach.used_mb)} MB of {show_mb(breach.limit_mb)} MB, peak {above:+.1f} MB, "
        f"by {breach.layer}; {after}"
    )
    if not named:
        figures += f"; but it {status} with {error or 'no error'}"
    return Verdict("ceiling", named and above <= ALLOWED_MB and next_result == "ran", figures)


def chunking(items: int, total_mb: float, result: tuple[int, float], run: RunRecord, limit_mb: float) -> Verdict:
    """``items`` of ``total_mb`` together went through a job in chunks. It returned how many, and MB used before."""
    done, before_mb = result
    holds = done == items and run.chunks >= 2 and run.breaches == 0 and run.peak_mb <= limit_mb < total_mb
    figures = (
        f"{done:,} of {items:,} items, {show_mb(total_mb)} MB, in {run.chunks:,} chunks: {before_mb:.1f} MB before, "
        f"peak {run.peak_mb:.1f} of {show_mb(limit_mb)} MB"
    )
    return Verdict("chunking", holds, figures)


def splitting(result: object, expected: int, children: int, run: RunRecord) -> Verdict:
    """A sum that ``children`` child jobs were to make."""
    split = run.split
    if split is None:
        return Verdict("splitting", False, f"it did not split, and returned {result!r}")
    holds = result == expected and split.total == split.ended == children and split.failed == 0
    figures = (
        f"{split.ended} of {split.total} children ended, {split.failed} failed; gathered {result!r} "
        f"(expected {expected}); peak of a child {split.peak_mb:.1f} MB"
    )
    return Verdict("splitting", holds, figures)


def resume(result: object, items: int, run: RunRecord) -> Verdict:
    """``items`` by a job whose full chunk does not fit."""
    once = result == list(range(items))
    how = "each item once" if once else f"not each item once: {result!r}"
    breaches = "1 breach" if run.breaches == 1 else f"{run.breaches} breaches"
    times = "once" if run.resumes == 1 else f"{run.resumes} times"
    figures = f"{breaches}, went on {times} with chunks of {run.chunk_size}; {items} items, {how}"
    return Verdict("resume", once and run.breaches >= 1 and run.resumes >= 1, figures)


def alert(seconds: float | None, raised: Collection[str], resolved: Collection[str]) -> Verdict:
    """``raised``, ``resolved``: rules with alerts about this script's jobs. ``seconds``: until the one about usage."""
    expected = {USAGE.name, CEILING.name, SPLIT.name}
    missing = sorted(expected - set(raised))
    usage = f"{USAGE.name} raised after {seconds:.1f} s" if seconds is not None else f"{USAGE.name} not raised"
    ended = "and resolved" if USAGE.name in resolved else "and not resolved"
    others = ", ".join(sorted(set(raised) - {USAGE.name})) or "nothing else"
    figures = f"{usage} {ended}; {others}" + (f"; missing: {', '.join(missing)}" if missing else "")
    return Verdict("alert", seconds is not None and not missing and USAGE.name in resolved, figures)


def unfinished(mechanism: str, status: str, error: str) -> Verdict:
    """The job did not finish, so there is nothing to judge."""
    return Verdict(mechanism, False, f"its job is {status}: {error or 'no error is known'}")
