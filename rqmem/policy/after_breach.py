"""Whether a job whose execution ended early goes on, and with which chunk size. Pure.

A crash loop is impossible by construction. Each resume either changes a parameter (the chunk halves, at most log2
times) or has made progress, and the number of resumes is bounded. A resume that follows a death without progress waits,
longer each time, since the cause of the death may pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rqmem.policy.escalation import Step, next_step, why_none
from rqmem.units import show_mb
from rqmem.values import dataclass

GOES_ON = ("resume", "split", "escalate")
"""The values of ``on_breach`` with which a job goes on in another execution."""

Cause = Literal["breach", "horse lost", "horse killed", "worker lost", "planned stop", "evicted"]
"""``horse killed``: by somebody, and not for memory, as far as is known. ``evicted``: by its pool, for others."""

WITHOUT_PROGRESS = 2
"""What a resume costs that has finished no chunk; others cost 1."""
ALONE = 8
"""What a resume costs that has not finished a chunk of one item. A death there is no proof, as a breach would be."""
LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True)
class Attempt:
    """The execution that ended.

    Attributes:
        resumable: the job asked for it (``on_breach`` is one of `GOES_ON`).
        began: it had begun to work in chunks.
        progressed: at least one chunk was finished in it.
        position: the items that it worked on, for the message.
        cuts: after a breach, what is left is made child jobs (``on_breach = "split"``).
        cut: that has been tried before, with the same data.
        escalates: after a breach it goes on under the next ceiling (``on_breach = "escalate"``).
        steps: its ceilings; ``ceiling_mb``: that was breached; ``asked_mb``: of the last step taken, 0: none;
            ``allowed_mb``: by the worker, None: any.
    """

    resumable: bool
    began: bool
    chunk_size: int
    progressed: bool
    spent: int
    position: str = ""
    cuts: bool = False
    cut: bool = False
    escalates: bool = False
    steps: Sequence[Step] = ()
    ceiling_mb: float = 0.0
    asked_mb: float = 0.0
    allowed_mb: float | None = None

    @property
    def cost(self) -> int:
        return 1 if self.progressed else WITHOUT_PROGRESS


@dataclass(frozen=True)
class Resume:
    """Go on from the cursor, with this chunk size, after ``delay_seconds``.

    ``cost`` is taken from the budget. ``cut``: do not go on, but cut what is left in two children. ``step``: go on
    under this ceiling.
    """

    chunk_size: int
    cost: int = 1
    cut: bool = False
    delay_seconds: float = 0.0
    step: Step | None = None


@dataclass(frozen=True)
class GiveUp:
    """Fail the job; ``reason`` is empty if the job never asked to be resumed."""

    reason: str


def decide(cause: Cause, attempt: Attempt, max_resumes: int) -> Resume | GiveUp:
    if not attempt.resumable:
        return GiveUp("")
    if cause in ("planned stop", "evicted"):
        return Resume(attempt.chunk_size, cost=0)
    if cause == "breach" and attempt.escalates:
        return _escalate(attempt)
    if attempt.spent >= max_resumes:
        return GiveUp(f"its budget of {max_resumes} resumes is spent")
    return _after_breach(attempt) if cause == "breach" else _after_death(cause, attempt)


def _escalate(attempt: Attempt) -> Resume | GiveUp:
    """The next ceiling, which is a budget of its own: each step is taken once."""
    step = next_step(attempt.steps, attempt.ceiling_mb, attempt.asked_mb, attempt.allowed_mb)
    if step is not None:
        return Resume(attempt.chunk_size, cost=0, step=step)
    why, ceiling_mb = why_none(attempt.steps, attempt.ceiling_mb, attempt.asked_mb)
    if why == "last":
        return GiveUp(f"{show_mb(ceiling_mb)} MB is the last ceiling of escalate_to")
    return GiveUp(
        f"its next ceiling, {show_mb(ceiling_mb)} MB, is above this worker's --memory "
        f"({show_mb(attempt.allowed_mb or 0)} MB), and escalate_to names no queue for it"
    )


def _after_breach(attempt: Attempt) -> Resume | GiveUp:
    """Half the chunk, or child jobs, at once. The next execution must differ from this one."""
    if not attempt.began:
        return GiveUp("it had not begun process_in_chunks, so the next run would do the same")
    if attempt.cuts and attempt.cut and not attempt.progressed:
        return GiveUp("what is left was to be cut, and it is not its items that do not fit")
    if attempt.cuts:
        return Resume(attempt.chunk_size, cut=True)
    if attempt.chunk_size > 1:
        return Resume(attempt.chunk_size // 2, attempt.cost)
    if attempt.progressed:
        return Resume(1)
    place = f" ({attempt.position})" if attempt.position else ""
    return GiveUp(
        f"a chunk of one item{place} does not fit alone below the ceiling: raise it, or use less for that item"
    )


def _after_death(cause: Cause, attempt: Attempt) -> Resume:
    """Half the chunk after a lost horse, the same chunk where nothing points to its size.

    Nothing does if somebody killed the horse, or if a worker is lost that had progressed or is the first one lost. A
    second lost worker at the same place may be the machine's memory. Without progress, the next try is delayed by 0, 1,
    3, 7, ... seconds.
    """
    delay_seconds = 0.0
    if not attempt.progressed:
        delay_seconds = min(LONGEST_DELAY_SECONDS, 2.0 ** min(attempt.spent // WITHOUT_PROGRESS, 10) - 1)
    first_death = attempt.spent < WITHOUT_PROGRESS
    same = cause == "horse killed" or (cause == "worker lost" and (attempt.progressed or first_death))
    if not attempt.began or same:
        return Resume(attempt.chunk_size, attempt.cost, delay_seconds=delay_seconds)
    if attempt.chunk_size > 1:
        return Resume(attempt.chunk_size // 2, attempt.cost, delay_seconds=delay_seconds)
    return Resume(1, 1 if attempt.progressed else ALONE, delay_seconds=delay_seconds)
