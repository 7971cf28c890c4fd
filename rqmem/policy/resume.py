"""Whether a job whose execution ended early goes on, and with which chunk size. Pure.

A crash loop is impossible by construction: each resume either changes a parameter (the chunk halves,
at most log2 times) or has made progress, and their number is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["breach", "horse lost", "worker lost"]


@dataclass(frozen=True)
class Attempt:
    """The execution that ended.

    Attributes:
        resumable: the job asked for it (``on_breach = "resume"``).
        began: it had begun to work in chunks.
        chunk_size: items per chunk in this execution.
        progressed: at least one chunk was finished in it.
        resumes: how often the job was resumed before.
        position: the items it was at, for the message.
    """

    resumable: bool
    began: bool
    chunk_size: int
    progressed: bool
    resumes: int
    position: str = ""


@dataclass(frozen=True)
class Resume:
    """Go on from the cursor, with this chunk size."""

    chunk_size: int


@dataclass(frozen=True)
class GiveUp:
    """Fail the job; ``reason`` is empty where the job never asked to be resumed."""

    reason: str


def decide(cause: Cause, attempt: Attempt, max_resumes: int) -> Resume | GiveUp:
    """Half the chunk after a breach or a lost horse; the same chunk after a lost worker that had progressed."""
    if not attempt.resumable:
        return GiveUp("")
    if attempt.resumes >= max_resumes:
        return GiveUp(f"resumed {attempt.resumes} times already, which is the limit")
    if not attempt.began and cause == "breach":
        return GiveUp("it had not begun process_in_chunks, so the next run would do the same")
    if not attempt.began or (cause == "worker lost" and attempt.progressed):
        return Resume(attempt.chunk_size)
    if attempt.chunk_size > 1:
        return Resume(attempt.chunk_size // 2)
    if attempt.progressed:
        return Resume(1)
    place = f" ({attempt.position})" if attempt.position else ""
    return GiveUp(f"{cause} with a chunk of one item{place}: it does not fit alone")
