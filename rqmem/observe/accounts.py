"""What tenants used: MB times seconds of their jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rqmem.observe.vocabulary import versioned
from rqmem.text import counted
from rqmem.values import dataclass

_SHOWN = 5


@dataclass(frozen=True)
class Tenant:
    """A tenant, as the argument names it that its jobs' class calls ``tenant``.

    ``mb_seconds``: the memory of its jobs in MB, added up over each second that they ran.
    """

    tenant: str
    mb_seconds: float

    def to_json(self) -> dict[str, Any]:
        return versioned(**of_tenant(self))


def of_tenant(each: Tenant) -> dict[str, Any]:
    return {"tenant": each.tenant, "mb_seconds": round(each.mb_seconds, 1)}


def ranked(used: Mapping[str, float]) -> list[Tenant]:
    """Those who used most first."""
    return [Tenant(name, amount) for name, amount in sorted(used.items(), key=lambda each: (-each[1], each[0]))]


def tenants_words(tenants: Sequence[Tenant]) -> str:
    """The first of them in one line; empty without any."""
    told = [f"{each.tenant} {each.mb_seconds:,.0f}" for each in tenants[:_SHOWN]]
    more = len(tenants) - _SHOWN
    rest = f", and {counted(more, 'more tenant')}" if more > 0 else ""
    return f"tenants by MB seconds: {', '.join(told)}{rest}" if told else ""
