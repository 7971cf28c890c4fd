"""The calls that were made, and how ``/v3/list-calls`` filters and pages them. No clock and no I/O.

Filters by ``metadata`` (text, equal to or one of), ``batch_call_id`` and ``call_id``; others are refused, and not
passed over in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from seeds.retell_stand_in.requests import Refused

DEFAULT_LIMIT, LARGEST_LIMIT = 50, 1000


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
        """One line of the record, for tests."""
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


Filter = Callable[[RecordedCall], bool]


def page(calls: Sequence[RecordedCall], request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request to ``/v3/list-calls``. ``calls`` is in the order in which they were made, and only grows.

    Raises `Refused`.
    """
    limit, skip = _number(request, "limit", DEFAULT_LIMIT, LARGEST_LIMIT), _number(request, "skip", 0)
    order = request.get("sort_order", "descending")
    if order not in ("ascending", "descending"):
        raise Refused(400, "wrong_type", "sort_order must be ascending or descending.")
    if skip and "pagination_key" in request:
        raise Refused(400, "wrong_type", "skip and pagination_key exclude each other.")
    filters = _filters(request.get("filter_criteria", {}))
    matching = (
        place
        for place in _places(len(calls), request.get("pagination_key"), descending=order == "descending")
        if all(each(calls[place]) for each in filters)
    )
    found = [place for _, place in zip(range(skip + limit + 1), matching, strict=False)][skip:]
    answer: dict[str, Any] = {"has_more": len(found) > limit, "items": [calls[p].as_listed() for p in found[:limit]]}
    if answer["has_more"]:
        answer["pagination_key"] = str(found[limit - 1])
    if request.get("include_total"):
        answer["total"] = sum(all(each(call) for each in filters) for call in calls)
    return answer


def _places(count: int, after: Any, *, descending: bool) -> Iterator[int]:
    """Indexes of the calls in the order asked for, behind the one where the last page ended."""
    if after is not None and not (isinstance(after, str) and after.isascii() and after.isdigit()):
        raise Refused(400, "wrong_type", "pagination_key is none of ours.")
    if descending:
        return iter(range((count if after is None else min(int(after), count)) - 1, -1, -1))
    return iter(range(0 if after is None else int(after) + 1, count))


def _number(request: dict[str, Any], name: str, default: int, largest: int | None = None) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (largest and not 0 < value <= largest):
        bounds = f"from 1 to {largest}" if largest else "of at least 0"
        raise Refused(400, "wrong_type", f"{name} must be an integer {bounds}.")
    return value


def _filters(criteria: Any) -> list[Filter]:
    if not isinstance(criteria, dict):
        raise Refused(400, "wrong_type", "filter_criteria must be an object.")
    found: list[Filter] = []
    for name, value in criteria.items():
        if name == "metadata" and isinstance(value, list):
            found += [_metadata_filter(each) for each in value]
        elif name in ("batch_call_id", "call_id"):
            found.append(_field_filter(name, _values(value, name)))
        else:
            raise Refused(400, "unknown_filter", f"The stand-in has no filter_criteria.{name}.")
    return found


def _field_filter(name: str, values: frozenset[str]) -> Filter:
    return lambda call: getattr(call, name) in values


def _metadata_filter(wanted: Any) -> Filter:
    values = _values(wanted, "metadata")
    key = wanted.get("key")
    if not isinstance(key, str):
        raise Refused(400, "missing_field", "filter_criteria.metadata needs a key.")
    quoted, quoted_values = json.dumps(key), [json.dumps(value) for value in values]

    def matches(call: RecordedCall) -> bool:  # the text tells soon of most that they have not both
        text = call.metadata
        return quoted in text and any(value in text for value in quoted_values) and json.loads(text).get(key) in values

    return matches


def _values(wanted: Any, name: str) -> frozenset[str]:
    """What a text may be equal to, by a string filter (``eq``) or an enum filter (``in``)."""
    match wanted:
        case {"type": "string", "op": "eq", "value": str(value)}:
            return frozenset([value])
        case {"type": "enum", "op": "in", "value": [*values]} if all(isinstance(each, str) for each in values):
            return frozenset(values)
    raise Refused(400, "unknown_filter", f"The stand-in filters {name} by string eq and enum in only.")
