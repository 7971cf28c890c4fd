"""The ids of child jobs: ``PARENT-child-NUMBER``, and of their children in the same way. Pure."""

from __future__ import annotations

import re

_BELOW = "-child-"
CHILD_MARK = _BELOW.encode()
"""In the id of each child, as Redis has it."""
_CHILD = re.compile(rf"(?P<parent>.+){_BELOW}(?P<number>\d+)")


def child_id(parent_id: str, number: int) -> str:
    """The job id of a child; a child that is made again has the same id."""
    return f"{parent_id}{_BELOW}{number}"


def parent_of(job_id: str) -> tuple[str, int] | None:
    """The parent of a job, and its number among the children; None if it is no child."""
    found = _CHILD.fullmatch(job_id)
    return (found["parent"], int(found["number"])) if found else None


def top_of(job_id: str) -> str:
    """The job at the top of the tree that this job is in."""
    return job_id.partition(_BELOW)[0]


def short_id(job_id: str) -> str:
    """Enough of a job's id to recognise it in a line, and of a child also which one."""
    parent, child, numbers = job_id.partition(_BELOW)
    return parent[:8] + child + numbers
