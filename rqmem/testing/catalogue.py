"""What the catalogues of `rqmem.testing.adversaries` and `rqmem.testing.honest` consist of. Values only."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any, Literal

from rqmem.values import dataclass, field

Kwargs = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A job to run against your own set-up: enqueue ``path`` with ``kwargs(ceiling in MB)``.

    ``says`` is its one line for people; ``needs`` names modules that must be importable.
    """

    name: str
    path: str
    says: str
    needs: tuple[str, ...] = ()
    kwargs: Kwargs = field(default=lambda ceiling_mb: {}, repr=False)

    @property
    def missing(self) -> list[str]:
        """Modules it needs that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Adversary(Entry):
    """A job that uses more memory than it may; it must fail, and its error must say why.

    Attributes:
        step_mb: what one of its calls in C adds; no signal interrupts it, so that much comes on top.
        unwinds: False: its other threads go on while its main thread unwinds, so that only a kill ends it.
        on_failure: path of the failure callback to enqueue it with.
        meanwhile: what to do while it runs, once `BEGUN` is in Redis (its value is the job's pid): stop Redis for some
            seconds, or send SIGTERM to its worker at the moment the job is stopped.
    """

    step_mb: float = 0
    unwinds: bool = True
    on_failure: str = ""
    meanwhile: Literal["", "redis stopped", "worker terminated"] = ""


@dataclass(frozen=True)
class Honest(Entry):
    """A job that stays below its ceiling, whatever it looks like; it returns True and is never touched.

    ``ceiling_mb``: the ceiling at which it is worth trying; None: any from 128 MB.
    """

    ceiling_mb: int | None = None


BEGUN = "rqmem:testing:begun"
"""Redis key that jobs with a ``meanwhile`` set when they begin: their pid."""


def about(function: Callable[..., Any], home: str) -> dict[str, Any]:
    """Name, path in the module ``home``, and the docstring's first line."""
    says = (inspect.getdoc(function) or "").partition("\n")[0].rstrip(".")
    return {"name": function.__name__, "path": f"{home}.{function.__name__}", "says": says}
