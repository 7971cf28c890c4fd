"""The Retell stand-in, spoken to by the official SDK over real sockets, and as a command."""

from __future__ import annotations

import http.client
import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rqmem.testing import wait_until
from seeds.retell_stand_in import Faults, StandIn
from seeds.retell_stand_in.faults import TokenBucket
from seeds.retell_stand_in.service import LIST_CALLS, PHONE_CALL, RetellService
from tests import forked
from tests.conftest import StartCommand

if TYPE_CHECKING:
    import retell
    from retell import Retell

CALL: dict[str, Any] = {"from_number": "+14155550100", "to_number": "+4915112345678"}
QUIET = {"calls": 0, "batches": 0, "duplicates": 0, "rate_limited": 0, "errors": 0, "rejected": {}}


@pytest.fixture(scope="module", autouse=True)
def sdk() -> None:
    """Its import takes a second: only a process that runs these tests pays it, and not each that collects them."""
    global retell
    import retell


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[Retell]:
    with _client(stand_in) as client:
        yield client


def _client(stand_in: StandIn, api_key: str | None = None) -> Retell:
    """Answers are held against the SDK's response types."""
    return retell.Retell(api_key=api_key or stand_in.api_key, base_url=stand_in.url, _strict_response_validation=True)


def _get(stand_in: StandIn, path: str, key: str | None = None) -> tuple[int, list[Any]]:
    """Status, and the JSON of each line, of what is there for tests."""
    connection = http.client.HTTPConnection(stand_in.url.removeprefix("http://"))
    connection.request("GET", path, headers={"Authorization": f"Bearer {key or stand_in.api_key}"})
    response = connection.getresponse()
    lines = [json.loads(line) for line in response.read().decode().splitlines()]
    connection.close()
    return response.status, lines


# Calls


def test_a_call_is_answered_as_the_sdk_expects(stand_in: StandIn, client: Retell) -> None:
    answer = client.call.with_raw_response.create_phone_call(
        **CALL,
        override_agent_id="agent_7",
        metadata={"customer_id": 5},
        retell_llm_dynamic_variables={"name": "Zoë"},
    )
    assert answer.status_code == 201
    call = answer.parse()
    assert call.call_id
    assert (call.call_status, call.call_type, call.direction) == ("registered", "phone_call", "outbound")
    assert (call.from_number, call.to_number) == ("+14155550100", "+4915112345678")
    assert (call.agent_id, call.metadata) == ("agent_7", {"customer_id": 5})
    assert call.retell_llm_dynamic_variables == {"name": "Zoë"}
    assert stand_in.service.record() == {**QUIET, "requests": 1, "calls": 1}


def test_what_was_sent_is_recorded(stand_in: StandIn, client: Retell) -> None:
    ids = [
        client.call.create_phone_call(**CALL, idempotency_key=f"c-{n}", metadata={"customer_id": n}).call_id
        for n in range(3)
    ]
    assert _get(stand_in, "/_record") == (200, [{**QUIET, "requests": 3, "calls": 3}])
    status, calls = _get(stand_in, "/_record/calls")
    assert status == 200
    assert calls == [
        {
            "call_id": ids[n],
            "to_number": "+4915112345678",
            "idempotency_key": f"c-{n}",
            "batch_call_id": None,
            "metadata": {"customer_id": n},
        }
        for n in range(3)
    ]
    assert len(set(ids)) == 3


def test_a_batch(stand_in: StandIn, client: Retell) -> None:
    tasks = [{"to_number": f"+4915112345{n}", "metadata": {"customer_id": n}} for n in range(100, 103)]
    answer = client.batch_call.create_batch_call(from_number="+14155550100", tasks=tasks, name="first")
    assert (answer.name, answer.total_task_count, answer.from_number) == ("first", 3, "+14155550100")
    recorded = list(stand_in.service.calls())
    assert [json.loads(call.metadata)["customer_id"] for call in recorded] == [100, 101, 102]
    assert {call.batch_call_id for call in recorded} == {answer.batch_call_id}
    assert stand_in.service.record() == {**QUIET, "requests": 1, "calls": 3, "batches": 1}


def test_a_batch_sent_twice_calls_twice(stand_in: StandIn, client: Retell) -> None:
    batch = {"from_number": "+14155550100", "tasks": [{"to_number": "+4915112345678"}]}
    answers = [client.batch_call.create_batch_call(**batch) for _ in range(2)]
    assert answers[0].batch_call_id != answers[1].batch_call_id
    assert stand_in.service.record()["calls"] == 2


# Lists


def _ids(found: Any) -> list[int]:
    return [call.metadata["customer_id"] for call in found.items]


def _by_metadata(key: str, *values: str) -> Any:
    return {"metadata": [{"key": key, "type": "enum", "op": "in", "value": list(values)}]}


def test_calls_are_listed_as_the_sdk_expects(stand_in: StandIn, client: Retell) -> None:
    stand_in.service.set_faults(Faults(unanswered_every=2))
    for number in (1, 2):
        client.call.create_phone_call(**CALL, metadata={"customer_id": number}, override_agent_id="agent_7")
    answer = client.call.with_raw_response.list(sort_order="ascending")
    assert answer.status_code == 200
    found: Any = answer.parse()
    assert (found.has_more, _ids(found)) == (False, [1, 2])
    answered, unanswered = found.items
    assert (answered.call_status, answered.call_type, answered.agent_id) == ("ended", "phone_call", "agent_7")
    assert (answered.from_number, answered.to_number) == ("+14155550100", "+4915112345678")
    assert (unanswered.call_status, unanswered.disconnection_reason) == ("not_connected", "dial_no_answer")


def test_a_list_is_read_page_by_page(stand_in: StandIn, client: Retell) -> None:
    tasks: Any = [
        {"to_number": "+4915112345678", "metadata": {"customer_id": n, "batch": f"b{n % 2}"}} for n in range(10)
    ]
    batch = client.batch_call.create_batch_call(from_number="+14155550100", tasks=tasks)
    client.call.create_phone_call(**CALL, metadata={"customer_id": 99})
    wanted = _by_metadata("batch", "b1", "b7")
    first = client.call.list(filter_criteria=wanted, limit=3, sort_order="ascending", include_total=True)
    assert (first.has_more, first.total, _ids(first)) == (True, 5, [1, 3, 5])
    assert first.pagination_key is not None
    rest = client.call.list(
        filter_criteria=wanted, limit=3, sort_order="ascending", pagination_key=first.pagination_key
    )
    assert (rest.has_more, rest.pagination_key, _ids(rest)) == (False, None, [7, 9])
    newest = client.call.list(limit=2)
    assert _ids(newest) == [99, 9]
    older = client.call.list(limit=2, pagination_key=newest.pagination_key or "")
    assert _ids(older) == [8, 7]
    assert _ids(client.call.list(limit=2, skip=1)) == [9, 8]
    of_the_batch: Any = {"batch_call_id": {"type": "string", "op": "eq", "value": batch.batch_call_id}}
    assert len(client.call.list(filter_criteria=of_the_batch).items) == 10
    assert _ids(client.call.list(filter_criteria=_by_metadata("batch", "b5"))) == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"limit": 1001}, "limit: Input should be less than or equal to 1000"),
        ({"limit": True}, "limit: Input should be a valid integer"),
        ({"skip": -1}, "skip: Input should be greater than or equal to 0"),
        ({"skip": 1, "pagination_key": "1"}, "skip and pagination_key exclude each other"),
        ({"pagination_key": "call_1"}, "pagination_key: String should match pattern"),
        ({"sort_order": "up"}, "sort_order: Input should be 'ascending' or 'descending'"),
        ({"filter_criteria": []}, "filter_criteria: Input should be an object"),
        ({"filter_criteria": {"direction": {}}}, "filter_criteria.direction: Extra inputs are not permitted"),
        (
            {"filter_criteria": {"metadata": [{"type": "string", "op": "co", "value": "x", "key": "k"}]}},
            "filter_criteria.metadata[0].op: Input should be 'eq' or 'in'",
        ),
        (
            {"filter_criteria": {"metadata": [{"type": "string", "op": "eq", "value": "x"}]}},
            "filter_criteria.metadata[0].key is required",
        ),
    ],
)
def test_a_bad_list(stand_in: StandIn, request_: dict[str, Any], message: str) -> None:
    answer = stand_in.service.post(LIST_CALLS, f"Bearer {stand_in.api_key}", json.dumps(request_).encode(), 0.0)
    assert answer.status == 400
    assert message in json.loads(answer.body)["message"]


def test_while_all_lines_are_taken_batches_wait(stand_in: StandIn, client: Retell) -> None:
    assert client.concurrency.retrieve().current_concurrency == 0
    stand_in.service.set_faults(Faults(busy=True))
    batch: Any = {"from_number": "+14155550100", "tasks": [{"to_number": "+4915112345678"}]}
    assert client.batch_call.create_batch_call(**batch).total_task_count == 1
    lines = client.concurrency.retrieve()
    assert lines.current_concurrency == lines.concurrency_limit == 20
    assert client.call.list().items == []
    assert stand_in.service.record() == {**QUIET, "requests": 2, "batches": 1}
    stand_in.service.set_faults(Faults(busy=True, reserved_lines=5, changing_lines=2))
    lines = client.concurrency.retrieve()
    assert (lines.current_concurrency, lines.reserved_inbound_concurrency, lines.concurrency_limit) == (13, 5, 20)
    stand_in.service.set_faults(Faults())
    assert len(client.call.list().items) == stand_in.service.record()["calls"] == 1
    with _client(stand_in, "key_other") as other, pytest.raises(retell.AuthenticationError):
        other.concurrency.retrieve()


def test_a_number_that_is_not_to_be_called(stand_in: StandIn, client: Retell) -> None:
    stand_in.service.set_faults(Faults(refused_number=CALL["to_number"]))
    with pytest.raises(retell.BadRequestError, match="do not call"):
        client.call.create_phone_call(**CALL)
    tasks: Any = [{"to_number": "+4915112345679"}, {"to_number": CALL["to_number"]}]
    with pytest.raises(retell.BadRequestError, match="do not call"):
        client.batch_call.create_batch_call(from_number="+14155550100", tasks=tasks)
    assert stand_in.service.record() == {**QUIET, "requests": 2, "rejected": {"do_not_call": 2}}


@pytest.mark.parametrize(("mode", "accepted"), [("before", 0), ("after", 1), ("drop", 1)])
def test_an_answer_to_a_batch_that_is_lost(stand_in: StandIn, client: Retell, mode: str, accepted: int) -> None:
    stand_in.service.set_faults(Faults(error_every=1, error_mode=mode))  # type: ignore[arg-type]
    with pytest.raises((retell.InternalServerError, retell.APIConnectionError)):
        client.batch_call.create_batch_call(from_number="+14155550100", tasks=[{"to_number": "+4915112345678"}])
    assert stand_in.service.record()["batches"] == accepted


# Refusals


def test_a_wrong_key(stand_in: StandIn) -> None:
    with _client(stand_in, "key_other") as client, pytest.raises(retell.AuthenticationError) as error:
        client.call.create_phone_call(**CALL)
    assert error.value.status_code == 401
    assert error.value.body == {"status": "error", "message": "API key is missing or invalid."}
    assert stand_in.service.record() == {**QUIET, "requests": 1, "rejected": {"api_key": 1}}


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"to_number": "4915112345678"}, "not_e164", "to_number must be in E.164"),
        ({"to_number": ""}, "not_e164", "to_number must be in E.164"),
        ({"to_number": "+49 151"}, "not_e164", "to_number must be in E.164"),
        ({"to_number": "+1415\n5550101" * 90}, "not_e164", "to_number must be in E.164"),
        ({"from_number": "+١٢٣٤٥٦٧٨٩"}, "not_e164", "from_number must be in E.164"),
        ({"to_number": None}, "missing_field", "to_number is required"),
        ({"from_number": 14155550100}, "wrong_type", "from_number: Input should be a valid string"),
        ({"idempotency_key": ""}, "wrong_type", "idempotency_key: String should have at least 1 character"),
        ({"metadata": "x"}, "wrong_type", "metadata: Input should be an object"),
        ({"honor_internal_dnc": 1}, "wrong_type", "honor_internal_dnc: Input should be a valid boolean"),
        ({"override_agent_version": True}, "wrong_type", "override_agent_version.str: Input should be a valid string"),
        (
            {"retell_llm_dynamic_variables": {"n": 1}},
            "wrong_type",
            "retell_llm_dynamic_variables.n: Input should be a valid string",
        ),
    ],
)
def test_a_bad_call(stand_in: StandIn, client: Retell, change: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(retell.BadRequestError) as error:
        client.call.create_phone_call(**{**CALL, **change})
    assert error.value.body["status"] == "error"
    said = error.value.body["message"]
    assert message in said
    assert "\n" not in said
    assert len(said) < 200
    assert stand_in.service.record() == {**QUIET, "requests": 1, "rejected": {reason: 1}}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "tasks: List should have at least 1 item"),
        (["x"], "tasks[0]: Input should be an object"),
        ([{"to_number": "+4915112345678"}, {"to_number": "x"}], "tasks[1].to_number must be in E.164"),
        ([{}], "tasks[0].to_number is required"),
    ],
)
def test_a_bad_batch_makes_no_call(stand_in: StandIn, client: Retell, tasks: list[Any], message: str) -> None:
    with pytest.raises(retell.BadRequestError, match="error") as error:
        client.batch_call.create_batch_call(from_number="+14155550100", tasks=tasks)
    assert message in error.value.body["message"]
    assert stand_in.service.record()["calls"] == 0


def test_a_body_is_a_json_object(stand_in: StandIn) -> None:
    service, key = stand_in.service, f"Bearer {stand_in.api_key}"
    for body in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000):
        assert service.post(PHONE_CALL, key, body, 0.0).status == 400
    assert service.record()["rejected"] == {"not_json": 5}


def test_an_unknown_path(stand_in: StandIn, client: Retell) -> None:
    with pytest.raises(retell.NotFoundError):
        client.call.create_web_call(agent_id="agent_7")
    assert stand_in.service.record()["rejected"] == {"unknown_path": 1}


# Idempotency


def test_the_same_key_calls_once(stand_in: StandIn, client: Retell) -> None:
    answers = [client.call.create_phone_call(**CALL, idempotency_key="c-1") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert stand_in.service.record() == {**QUIET, "requests": 3, "calls": 1, "duplicates": 2}


def test_the_same_key_at_the_same_time_calls_once(stand_in: StandIn, client: Retell) -> None:
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(client.call.create_phone_call, **CALL, idempotency_key="c-1") for _ in range(24)]
        ids = {call.result().call_id for call in calls}
    assert len(ids) == 1
    assert stand_in.service.record()["calls"] == 1


def test_the_same_key_for_another_request_is_refused(stand_in: StandIn, client: Retell) -> None:
    client.call.create_phone_call(**CALL, idempotency_key="c-1")
    with pytest.raises(retell.BadRequestError, match="idempotency_key was already used"):
        client.call.create_phone_call(**{**CALL, "to_number": "+4915112345679"}, idempotency_key="c-1")
    assert stand_in.service.record()["rejected"] == {"idempotency_key_reused": 1}


def test_a_key_is_forgotten_after_its_time() -> None:
    service = RetellService("k", idempotency_seconds=3600)

    def call_at(now: float, key: str) -> str:
        answer = service.post(PHONE_CALL, "Bearer k", json.dumps({**CALL, "idempotency_key": key}).encode(), now)
        return str(json.loads(answer.body)["call_id"])

    first = call_at(0.0, "a")
    assert call_at(3599.0, "a") == first
    call_at(3600.0, "b")
    assert call_at(3601.0, "a") != first
    assert service.record()["calls"] == 3


# Faults


def _failures(client: Retell, requests: int) -> list[int]:
    """Which of so many requests, from 1, got no answer to work with."""
    failed = []
    for nth in range(1, requests + 1):
        try:
            client.call.create_phone_call(**CALL, idempotency_key=f"c-{nth}")
        except (retell.InternalServerError, retell.APIConnectionError):
            failed.append(nth)
    return failed


@pytest.mark.parametrize(("mode", "made"), [("before", 4), ("after", 6), ("drop", 6)])
def test_each_nth_goes_wrong_and_a_retry_with_its_key_calls_once(
    stand_in: StandIn, client: Retell, mode: str, made: int
) -> None:
    stand_in.service.set_faults(Faults(error_every=3, error_mode=mode))  # type: ignore[arg-type]
    assert _failures(client, 6) == [3, 6]
    assert stand_in.service.record()["calls"] == made
    stand_in.service.set_faults(Faults())
    assert _failures(client, 6) == []
    record = stand_in.service.record()
    assert (record["calls"], record["errors"]) == (6, 2)
    assert record["duplicates"] == made


def test_the_rate_limit_says_when_to_come_back(stand_in: StandIn, client: Retell) -> None:
    stand_in.service.set_faults(Faults(rate_limit=0.001))
    client.call.create_phone_call(**CALL)
    with pytest.raises(retell.RateLimitError) as error:
        client.call.create_phone_call(**CALL)
    assert 990 <= int(error.value.response.headers["Retry-After"]) <= 1000
    record = stand_in.service.record()
    assert (record["calls"], record["rate_limited"]) == (1, 1)


def test_the_sdk_itself_waits_as_told(stand_in: StandIn, client: Retell) -> None:
    stand_in.service.set_faults(Faults(rate_limit=1))
    for _ in range(2):
        client.call.create_phone_call(**CALL, max_retries=2)
    record = stand_in.service.record()
    assert (record["calls"], record["rate_limited"]) == (2, 1)


def test_slow_answers_outlast_the_clients_patience(stand_in: StandIn, client: Retell) -> None:
    """The call is made, only its answer is late: what a retry without a key makes twice."""
    stand_in.service.set_faults(Faults(slow_every=2, slow_ms=60_000))
    client.call.create_phone_call(**CALL, timeout=5)
    with pytest.raises(retell.APITimeoutError):
        client.call.create_phone_call(**CALL, timeout=0.2)
    assert stand_in.service.record()["calls"] == 2


def test_delays_are_those_of_the_faults() -> None:
    faults = Faults(latency_ms=5, slow_every=3, slow_ms=100)
    assert [faults.delay(nth) for nth in (1, 2, 3, 4, 6)] == [0.005, 0.005, 0.105, 0.005, 0.105]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"error_evry": 3}, "did you mean error_every?"),
        ({"error_every": -1}, "error_every: Input should be greater than or equal to 0"),
        ({"error_every": 0.5}, "error_every: Input should be a valid integer"),
        ({"error_mode": "sometimes"}, "error_mode: Input should be 'before', 'after' or 'drop'"),
        ({"rate_limit": float("inf")}, "rate_limit: Input should be a finite number"),
        ({"slow_every": 2}, "slow_every and slow_ms need each other"),
        ({"busy": 1}, "busy: Input should be a valid boolean"),
    ],
)
def test_faults_that_mean_nothing(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Faults.parse(values)
    assert "\n" not in str(error.value)


@example(rate=1.5, gaps=[1.0, 3.0, 3.0, 0.0, 0.0, 2.0, 3.0, 3.0, 0.3333333333333333])
@given(
    rate=st.floats(0.1, 500),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_the_bucket_never_gives_more_than_the_rate(rate: float, gaps: list[float]) -> None:
    bucket, now = TokenBucket(rate), 0.0
    for granted, gap in enumerate(gaps, start=1):
        now += gap
        wait = bucket.take(now)
        if wait:
            now += wait * 1.001  # what Retry-After promises
            assert bucket.take(now) == 0.0
        assert granted <= bucket.size + rate * now + 0.001


# The server


@pytest.mark.parametrize("path", ["/_record", "/_record/calls"])
def test_what_is_for_tests_needs_the_key_too(stand_in: StandIn, path: str) -> None:
    assert _get(stand_in, path, key="key_other")[0] == 401


def test_stopped_it_serves_nobody_and_comes_back_on_its_port(stand_in: StandIn, client: Retell) -> None:
    """Also not those whose connection was open: an API that is down is down."""
    url = stand_in.url
    first = client.call.create_phone_call(**CALL, idempotency_key="c-1")
    stand_in.stop()
    with pytest.raises(retell.APIConnectionError):
        client.call.create_phone_call(**CALL, idempotency_key="c-1")
    stand_in.start()
    assert stand_in.url == url
    assert client.call.create_phone_call(**CALL, idempotency_key="c-1") == first


def test_stopping_does_not_wait_for_slow_answers(stand_in: StandIn, client: Retell) -> None:
    stand_in.service.set_faults(Faults(latency_ms=60_000))
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.call.create_phone_call, **CALL)
        wait_until(lambda: stand_in.service.record()["calls"] == 1)
        stand_in.stop()
        # The answer may just have left when the connection was cut; either way it ends now.
        with suppress(retell.APIConnectionError):
            call.result(timeout=10)


# The command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command(tmp_path: Path, start_command: StartCommand, number: signal.Signals) -> None:
    ready = tmp_path / "a space" / "ready"
    ready.parent.mkdir()
    options = ["--api-key", "key_x", "--error-every", "2", "--ready-file", str(ready)]
    running = start_command(*options, module="seeds.retell_stand_in")
    running.wait_for("\n")
    url = ready.read_text().strip()
    with retell.Retell(api_key="key_x", base_url=url) as client:
        assert _failures(client, 2) == [2]
        assert running.end(number) == 0
    assert running.printed == f"Retell stand-in on {url} (API key key_x)\n"
    assert not ready.exists()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("--port", "70000"), 2, "70000 is not in the range"),
        (("--error-every", "-1"), 2, "error_every: Input should be greater than or equal to 0"),
        (("--error-mode", "never"), 2, "'never' is not one of"),
        (("--api-key", " "), 2, "must be some ASCII characters"),
        (("--ready-file", "/no/such/directory/ready"), 1, "/no/such/directory/ready"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], exit_code: int, says: str) -> None:
    done = forked.run_module("seeds.retell_stand_in", *arguments)
    assert done.returncode == exit_code
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(stand_in: StandIn) -> None:
    port = stand_in.url.rpartition(":")[2]
    done = forked.run_module("seeds.retell_stand_in", "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"Error: Retell stand-in, port {port}: Address already in use\n"
