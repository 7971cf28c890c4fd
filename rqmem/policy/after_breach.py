"""Whether a job whose execution ended early goes on, and with which chunk size. Pure.

A crash loop is impossible by construction: each resume either changes a parameter (the chunk halves,
at most log2 times) or has made progress, and their number is bounded. One that follows a death and has
made no progress waits, longer each time: whatever killed it may pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["breach", "horse lost", "horse killed", "worker lost", "planned stop"]
"""``horse killed``: by somebody, and not for memory as far as anybody knows."""


WITHOUT_PROGRESS = 2
"""What a resume costs that has finished no chunk; others cost 1."""
ALONE = 8
"""What a resume costs that has not finished a chunk of one item. A death there is no proof, as a breach would be."""
LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True)
class Attempt:
    """The execution that ended.

    Attributes:
        resumable: the job asked for it (``on_breach = "resume"``).
        began: it had begun to work in chunks.
        chunk_size: items per chunk in this execution.
        progressed: at least one chunk was finished in it.
        spent: what resumes have cost so far.
        position: the items it was at, for the message.
        cuts: after a breach what is left had better become children (``on_breach = "split"``).
        cut: it was told so before, of the same data.
    """

    resumable: bool
    began: bool
    chunk_size: int
    progressed: bool
    spent: int
    position: str = ""
    cuts: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Resume:
    """Go on from the cursor, with this chunk size; ``cost`` is what that takes from the budget.

    ``cut``: not go on, but cut what is left in two children. ``delay_seconds``: not before.
    """

    chunk_size: int
    cost: int = 1
    cut: bool = False
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class GiveUp:
    """Fail the job; ``reason`` is empty where the job never asked to be resumed."""

    reason: str


def decide(cause: Cause, attempt: Attempt, max_resumes: int) -> Resume | GiveUp:
    """Half the chunk after a breach or a lost horse; the same chunk where nothing points to its size.

    That is a horse that somebody killed, and a lost worker that had progressed or is lost for the first time: a second
    one at the same place may be the machine's memory.
    A death without progress delays the next try by 0, 1, 3, 7 … seconds. A breach does not: the next try differs.
    """
    if not attempt.resumable:
        return GiveUp("")
    if cause == "planned stop":
        return Resume(attempt.chunk_size, cost=0)
    if attempt.spent >= max_resumes:
        return GiveUp(f"resumes have cost {attempt.spent} of a budget of {max_resumes} already")
    if not attempt.began and cause == "breach":
        return GiveUp("it had not begun process_in_chunks, so the next run would do the same")
    if cause == "breach" and attempt.cuts and attempt.cut and not attempt.progressed:
        return GiveUp("what is left was to be cut, and it is not its items that do not fit")
    if cause == "breach" and attempt.cuts:
        return Resume(attempt.chunk_size, cut=True)
    cost = 1 if attempt.progressed else WITHOUT_PROGRESS
    delay_seconds = 0.0
    if cause != "breach" and not attempt.progressed:
        delay_seconds = min(LONGEST_DELAY_SECONDS, 2.0 ** min(attempt.spent // WITHOUT_PROGRESS, 10) - 1)
    first_death = attempt.spent < WITHOUT_PROGRESS
    same = cause == "horse killed" or (cause == "worker lost" and (attempt.progressed or first_death))
    if not attempt.began or same:
        return Resume(attempt.chunk_size, cost, delay_seconds=delay_seconds)
    if attempt.chunk_size > 1:
        return Resume(attempt.chunk_size // 2, cost, delay_seconds=delay_seconds)
    if attempt.progressed:
        return Resume(1)
    if cause != "breach":
        return Resume(1, ALONE, delay_seconds=delay_seconds)
    place = f" ({attempt.position})" if attempt.position else ""
    return GiveUp(f"breach with a chunk of one item{place}: it does not fit alone")
