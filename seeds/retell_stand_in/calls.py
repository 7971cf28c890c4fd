"""The calls that were made, and how ``/v3/list-calls`` filters and pages them. No clock and no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from seeds.retell_stand_in.requests import Filters, ListCalls


class RecordedCall(NamedTuple):
    """One call that was made. ``metadata`` is JSON text: a thousand dicts weigh more. ``answered``: somebody did."""

    call_id: str
    from_number: str
    to_number: str
    agent_id: str
    idempotency_key: str | None
    batch_call_id: str | None
    metadata: str
    made_at_ms: int
    answered: bool = True

    def as_json(self) -> str:
        names = ("call_id", "to_number", "idempotency_key", "batch_call_id")
        values = {**{name: getattr(self, name) for name in names}, "metadata": json.loads(self.metadata)}
        return json.dumps(values, separators=(",", ":"))

    def as_listed(self) -> dict[str, Any]:
        """As Retell lists it. A call that somebody answers is over at once."""
        end = {"call_status": "ended", "disconnection_reason": "agent_hangup"}
        if not self.answered:
            end = {"call_status": "not_connected", "disconnection_reason": "dial_no_answer"}
        return {
            "call_id": self.call_id,
            "call_type": "phone_call",
            "direction": "outbound",
            "agent_id": self.agent_id,
            "agent_version": 1,
            "from_number": self.from_number,
            "to_number": self.to_number,
            "metadata": json.loads(self.metadata),
            "start_timestamp": self.made_at_ms,
            **end,
        }


def page(calls: Sequence[RecordedCall], request: ListCalls) -> dict[str, Any]:
    """The answer to a request to ``/v3/list-calls``. ``calls``: in the order in which they were made; more may come."""
    ascending, after = request.sort_order == "ascending", request.pagination_key
    places = range(len(calls)) if after is None else range(int(after) + 1, len(calls))
    if not ascending:
        places = range(len(calls) if after is None else min(int(after), len(calls)))[::-1]
    matching = (place for place in places if _matches(calls[place], request.filter_criteria))
    found = list(islice(matching, request.skip, request.skip + request.limit + 1))
    here = found[: request.limit]
    answer: dict[str, Any] = {"has_more": len(found) > len(here), "items": [calls[place].as_listed() for place in here]}
    if answer["has_more"]:
        answer["pagination_key"] = str(here[-1])
    if request.include_total:
        answer["total"] = sum(_matches(call, request.filter_criteria) for call in calls)
    return answer


def _matches(call: RecordedCall, filters: Filters) -> bool:
    fields = {"batch_call_id": filters.batch_call_id, "call_id": filters.call_id}
    if any(each is not None and getattr(call, name) not in each.values for name, each in fields.items()):
        return False
    # Most metadata need not be read as JSON: its text has not even the key.
    return all(
        json.dumps(each.key) in call.metadata and json.loads(call.metadata).get(each.key) in each.values
        for each in filters.metadata
    )
