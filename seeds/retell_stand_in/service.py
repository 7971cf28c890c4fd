"""What Retell does with a request, without HTTP: (path, key, body, now) in, an answer out.

Answers have the shapes of the real service: 201 (lists: 200) with the fields of retell-sdk's response
types, errors as ``{"status": "error", "message": ...}``. Calls are only recorded. Nothing is kept on
disk: a new service has forgotten its idempotency keys.

Memory: about 1 KB a call, until the record is cleared.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, NamedTuple
from uuid import uuid4

from seeds.retell_stand_in.answers import Answer, error_answer, json_answer, json_bytes
from seeds.retell_stand_in.calls import RecordedCall, page
from seeds.retell_stand_in.faults import Faults, TokenBucket
from seeds.retell_stand_in.requests import BatchCall, ListCalls, PhoneCall, Refused, check, json_object

PHONE_CALL = "/v2/create-phone-call"
BATCH_CALL = "/create-batch-call"
LIST_CALLS = "/v3/list-calls"
LINES = 20
IDEMPOTENCY_SECONDS = 3600.0


class _Remembered(NamedTuple):
    """An answer under an idempotency key, for the request with this digest."""

    digest: bytes
    body: bytes
    expires_at: float


class RetellService:
    """The state of the made-up Retell. Safe to use from several threads."""

    def __init__(
        self, api_key: str, faults: Faults | None = None, idempotency_seconds: float = IDEMPOTENCY_SECONDS
    ) -> None:
        self._authorization = f"Bearer {api_key}".encode()
        self._idempotency_seconds = idempotency_seconds
        self._lock = threading.Lock()
        self.clear()
        self.set_faults(faults or Faults())

    # What clients see

    def authorized(self, authorization: str) -> bool:
        return compare_digest(authorization.encode(), self._authorization)

    def post(self, path: str, authorization: str, body: bytes, now: float) -> Answer:
        """Answer a POST that arrived at ``now`` (seconds; only differences count, but for timestamps)."""
        with self._lock:
            self._counts["requests"] += 1
            try:
                return self._post(path, authorization, body, now)
            except Refused as refused:
                self._rejected[refused.reason] += 1
                return error_answer(refused.status, refused.message)

    def _post(self, path: str, authorization: str, body: bytes, now: float) -> Answer:
        if not self.authorized(authorization):
            raise Refused(401, "api_key", "API key is missing or invalid.")
        if path not in (PHONE_CALL, BATCH_CALL, LIST_CALLS):
            raise Refused(404, "unknown_path", f"Cannot POST {path}")
        if wait := self._bucket.take(now):
            self._counts["rate_limited"] += 1
            return error_answer(
                429,
                "Account rate limited, please throttle your requests.",
                {"Retry-After": str(math.ceil(wait))},
            )
        request = json_object(body) if body or path != LIST_CALLS else {}
        if path == LIST_CALLS:
            wanted = check(ListCalls, body or b"{}")
            return self._with_faults(200, lambda: json_bytes(page(self._calls, wanted)))
        check(PhoneCall if path == PHONE_CALL else BatchCall, body)
        for task in request.get("tasks", [request]):
            if task["to_number"] == self._faults.refused_number:
                raise Refused(400, "do_not_call", f"{task['to_number']} is marked as do not call.")
        work = self._phone_call if path == PHONE_CALL else self._batch_call
        return self._with_faults(201, lambda: work(request, now))

    def concurrency(self) -> Answer:
        """How many lines the account has, and how many are taken."""
        with self._lock:
            faults = self._faults
        taken = LINES - faults.reserved_lines - faults.changing_lines if faults.busy else 0
        lines = {"base_concurrency": LINES, "purchased_concurrency": 0, "concurrency_limit": LINES}
        reserved = {"reserved_inbound_concurrency": faults.reserved_lines}
        return json_answer(200, {"current_concurrency": taken, **lines, **reserved})

    def _with_faults(self, status: int, work: Callable[[], bytes]) -> Answer:
        """Do the work and answer, or go wrong as the faults say."""
        self._valid_requests += 1
        nth, faults = self._valid_requests, self._faults
        fails, delay = faults.fails(nth), faults.delay(nth)
        body = b"" if fails and faults.error_mode == "before" else work()
        if not fails:
            return Answer(status, body, delay=delay)
        self._counts["errors"] += 1
        failure = error_answer(500, "An unexpected server error occurred.")
        return replace(failure, delay=delay, drop=faults.error_mode == "drop")

    def _phone_call(self, request: dict[str, Any], now: float) -> bytes:
        """Make the call, or give the answer that this key already had."""
        key = request.get("idempotency_key")
        if key is None:
            return self._make_call(request, None, now)
        self._forget_expired(now)
        digest = blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).digest()
        remembered = self._remembered.get(key)
        if remembered is None:
            body = self._make_call(request, None, now)
            self._remembered[key] = _Remembered(digest, body, now + self._idempotency_seconds)
            return body
        if remembered.digest != digest:
            raise Refused(400, "idempotency_key_reused", "idempotency_key was already used with a different request.")
        self._counts["duplicates"] += 1
        return remembered.body

    def _forget_expired(self, now: float) -> None:
        """Keys leave in the order they came: all live equally long."""
        while self._remembered:
            key, first = next(iter(self._remembered.items()))
            if first.expires_at > now:
                return
            del self._remembered[key]

    def _batch_call(self, request: dict[str, Any], now: float) -> bytes:
        """Make all calls of the batch, or wait with them for a free line. There is no idempotency key here: asked
        twice, called twice.
        """
        batch_id = f"batch_call_{uuid4().hex[:21]}"
        tasks = [({**task, "from_number": request["from_number"]}, batch_id, now) for task in request["tasks"]]
        self._waiting += tasks
        self._make_waiting_calls()
        self._counts["batches"] += 1
        return json_bytes(
            {
                "batch_call_id": batch_id,
                "name": request.get("name", ""),
                "from_number": request["from_number"],
                "scheduled_timestamp": request.get("trigger_timestamp", int(now * 1000)),
                "total_task_count": len(request["tasks"]),
            }
        )

    def _make_waiting_calls(self) -> None:
        if not self._faults.busy:
            for waiting in self._waiting:
                self._make_call(*waiting)
            self._waiting.clear()

    def _make_call(self, request: dict[str, Any], batch_id: str | None, now: float) -> bytes:
        call_id = f"call_{uuid4().hex[:27]}"
        metadata = request.get("metadata", {})
        agent = request.get("override_agent_id", "agent_of_the_number")
        self._counts["calls"] += 1
        self._calls.append(
            RecordedCall(
                call_id,
                request["from_number"],
                request["to_number"],
                agent,
                request.get("idempotency_key"),
                batch_id,
                json.dumps(metadata),
                int(now * 1000),
                self._faults.answered(self._counts["calls"]),
            )
        )
        answer = {
            "call_id": call_id,
            "call_type": "phone_call",
            "call_status": "registered",
            "direction": "outbound",
            "agent_id": agent,
            "agent_version": _agent_version(request.get("override_agent_version")),
            "from_number": request["from_number"],
            "to_number": request["to_number"],
            "metadata": metadata,
        }
        for name in ("retell_llm_dynamic_variables", "custom_sip_headers"):
            if name in request:
                answer[name] = request[name]
        return json_bytes(answer)

    # What tests see

    @property
    def faults(self) -> Faults:
        return self._faults

    def set_faults(self, faults: Faults) -> None:
        """From now on; every Nth is counted from here and the rate limit's bucket is full."""
        with self._lock:
            self._faults = faults
            self._bucket = TokenBucket(faults.rate_limit)
            self._valid_requests = 0
            self._make_waiting_calls()

    def record(self) -> dict[str, Any]:
        """Counts since the record was cleared.

        requests (all that were received), calls (made), batches, duplicates (answered from an
        idempotency key, no call made), rejected (by reason), rate_limited (429), errors (faults:
        500 or dropped).
        """
        with self._lock:
            names = ("requests", "calls", "batches", "duplicates", "rate_limited", "errors")
            return {**{name: self._counts[name] for name in names}, "rejected": dict(self._rejected)}

    def calls(self) -> Iterator[RecordedCall]:
        """The calls made until now, in order; those made while this is read are left out."""
        calls = self._calls
        return (calls[index] for index in range(len(calls)))

    def clear(self) -> None:
        """Forget the record, the calls that wait for a line, and the idempotency keys."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._rejected: Counter[str] = Counter()
            self._calls: list[RecordedCall] = []
            self._waiting: list[tuple[dict[str, Any], str, float]] = []
            self._remembered: dict[str, _Remembered] = {}


def _agent_version(wanted: str | int | None) -> int:
    """The version number that was asked for; tags and "latest" count as version 1 here."""
    return wanted if isinstance(wanted, int) else 1
