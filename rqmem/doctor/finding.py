"""A finding: what a check says. Values only."""

from __future__ import annotations

from typing import Literal

from rqmem.values import dataclass

Mark = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at, in a word or two.
        mark: ``ok``; ``note``: it works, and something could be better; ``problem``: it does not.
        text: what was found.
        advice: what to do, where it is not ``ok``.
    """

    name: str
    mark: Mark
    text: str
    advice: str = ""
