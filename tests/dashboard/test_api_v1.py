"""``/api/v1`` and the actions, against real Redis: golden bodies, paging, errors, CSV, what is done and noted."""

from __future__ import annotations

import csv
import io
import pickle
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.results import Result

import rqmem.api
from rqmem.dashboard import create_app
from rqmem.store import actions, codec, keys, pausing
from rqmem.store.history.history_records import EndedSplit
from tests.cli.conftest import JOB, filled  # noqa: F401  a fixture
from tests.cli.test_json import compare
from tests.journal_filling import Bomb, a_run, remember

API = "/api/v1"


@pytest.fixture
def app(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Flask:
    for name in ("PASSWORD", "PASSWORD_FILE", "SECRET"):
        monkeypatch.delenv(f"RQMEM_DASHBOARD_{name}", raising=False)
    monkeypatch.setenv("RQMEM_DASHBOARD_TOKEN", "a token for programs")
    return create_app(connection=connection)


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        client.environ_base["HTTP_AUTHORIZATION"] = "Bearer a token for programs"
        yield client


def fail(connection: Redis, name: str, score: float, queue: str = "q", error: str = "ValueError: no") -> Job:
    """A failed job whose meta is a trap."""
    job = Job.create(
        "shop.jobs.Mail.run", args=("secret",), connection=connection, origin=queue, id=name, status="failed"
    )  # type: ignore[arg-type]
    job.save()
    connection.sadd("rq:queues", f"rq:queue:{queue}")
    connection.hset(job.key, mapping={"meta": pickle.dumps(Bomb()), "enqueued_at": "2026-01-01T00:00:00.000000Z"})
    Result.create_failure(job, ttl=-1, exc_string=f"Traceback (most recent call last):\n  File x\n{error}\n")
    connection.zadd(Queue(queue, connection=connection).failed_job_registry.key, {name: score})
    return job


def get(client: FlaskClient, path: str, status: int = 200) -> Any:
    answer = client.get(f"{API}/{path}")
    assert answer.status_code == status, answer.text
    return answer.get_json()


BODIES = {
    "overview": "overview", "workers": "workers", "hosts": "hosts", "queues": "queues",
    "types": "types?window=24h&steps=1", "type": f"types/{JOB}", "jobs": "jobs?state=failed", "job": "jobs/j1",
    "splitting": "splitting", "leaks": "leaks?window=24h", "alerts": "alerts", "trends": "trends?window=24h&steps=1",
    "actions": "actions", "search": "search?q=j1",
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_as_its_golden_file(filled: Redis, client: FlaskClient, name: str) -> None:  # noqa: F811
    fail(filled, "broken", 5.0)
    ended = EndedSplit("parent-2", "shop.jobs.Split", 3, 1, 120, 80.5, time.time() - 60, time.time())
    filled.lpush(keys.ENDED_SPLITS, codec.to_json(ended))
    filled.sadd(keys.SPLITS, "parent")
    actions.note(
        filled, actions.ActionRecord("cancel", "ada@web-1", "command line", job_id="j9", count=1, text="cancelled")
    )
    body = get(client, BODIES[name])
    assert body["version"] == 2 and next(iter(body)) == "version"
    compare(f"api-{name}", body)


def test_the_overview_is_what_status_prints(filled: Redis, client: FlaskClient) -> None:  # noqa: F811
    ours, job = get(client, "overview"), get(client, "jobs/j1")
    assert [each["name"] for each in ours["workers"]] == [each.name for each in rqmem.api.workers(connection=filled)]
    printed = rqmem.api.job("j1", connection=filled).to_json()
    for moving in ("at", "usage_mb", "usage_percentage"):
        printed.pop(moving), job.pop(moving)
    assert job == printed


@pytest.mark.parametrize("path", ["types", "trends"])
def test_steps_are_given_on_request(filled: Redis, client: FlaskClient, path: str) -> None:  # noqa: F811
    without, given = get(client, path), get(client, f"{path}?steps=1")
    assert all("steps" not in each for each in without["job_types"])
    assert all(each["steps"] for each in given["job_types"])
    remember(filled, a_run("shop.jobs.Other", "j7", time.time()))  # a second one
    one = get(client, f"{path}?steps=1&limit=1")["job_types"]
    assert len(one) > 1, "the others are there too"
    assert ["steps" in each for each in one] == [True, *[False] * (len(one) - 1)]


def test_jobs_are_paged_by_a_cursor(connection: Redis, client: FlaskClient) -> None:
    for number in range(25):
        fail(connection, f"j{number:02}", number)
    names, path = [], "jobs?limit=10"
    for _ in range(3):
        page = get(client, path)
        names += [each["job_id"] for each in page["jobs"]]
        path = f"jobs?limit=10&cursor={page['cursor']}"
    assert names == [f"j{number:02}" for number in range(24, -1, -1)] and page["cursor"] == ""
    assert page["total"] == 25 and page["jobs"][0]["error"] == "ValueError: no"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("jobs?state=lost", 400, "state is 'lost'"),
        ("jobs?limit=201", 400, "from 1 to 200"),
        ("jobs?limit=x", 400, "from 1 to 200"),
        ("jobs?cursor=nonsense", 400, "cursor"),
        ("types?window=9y", 400, "window is '9y'"),
        ("alerts?since=soon", 400, "since"),
        ("jobs/nobody", 404, "no job 'nobody'"),
        ("types/jobs.Nobody", 404, "knows no job type"),
        ("nothing", 404, ""),
    ],
)
def test_an_error_is_json_with_a_hint(
    connection: Redis, client: FlaskClient, path: str, status: int, says: str
) -> None:
    body = get(client, path, status)
    assert set(body) == {"error", "hint"} and says in body["error"]


def test_tables_are_also_csv(filled: Redis, client: FlaskClient) -> None:  # noqa: F811
    fail(filled, "broken", 5.0, error="ValueError: =cmd()")
    for name in ("workers", "hosts", "queues", "types", "jobs", "splitting", "leaks", "alerts", "actions"):
        answer = client.get(f"{API}/{name}.csv")
        assert (answer.status_code, answer.mimetype) == (200, "text/csv"), name
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert len(rows) == len(next(v for k, v in get(client, name).items() if isinstance(v, list) and k != "running"))
    [row] = csv.DictReader(io.StringIO(client.get(f"{API}/jobs.csv").text))
    assert (row["job_id"], row["error"]) == ("broken", "ValueError: =cmd()")
    types = list(csv.DictReader(io.StringIO(client.get(f"{API}/types.csv").text)))
    assert {"job_type", "peak_mb.p90", "breaches.total"} <= set(types[0])


def test_arguments_are_hidden_on_request(connection: Redis) -> None:
    fail(connection, "j1", 1)
    with create_app(connection=connection, hide_arguments=True).test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        for path in ("jobs", "jobs/j1", "jobs.csv"):
            assert "secret" not in client.get(f"{API}/{path}").text
    with create_app(connection=connection).test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        assert "secret" in client.get(f"{API}/jobs/j1").text


def post(client: FlaskClient, path: str, status: int = 200, **values: Any) -> Any:
    answer = client.post(f"{API}/{path}", json=values)
    assert answer.status_code == status, answer.text
    return answer.get_json()


def test_a_program_retries_and_cancels_with_its_token(connection: Redis, client: FlaskClient) -> None:
    fail(connection, "j1", 1)
    assert post(client, "jobs/j1/retry") == {"version": 2, "text": "job j1 is queued again", "count": 1}
    assert connection.hget("rq:job:j1", "status") == b"queued"
    assert post(client, "jobs/j1/cancel")["count"] == 1
    assert connection.hget("rq:job:j1", "status") == b"canceled"
    assert "nothing to cancel" in post(client, "jobs/j1/cancel", 400)["error"]
    noted = rqmem.api.actions(connection=connection)
    assert [(each.what, each.job_id, each.surface) for each in noted] == [
        ("cancel", "j1", "api"),
        ("retry", "j1", "api"),
    ]


def test_jobs_are_retried_by_filter_as_many_as_were_confirmed(connection: Redis, client: FlaskClient) -> None:
    for number in range(12):
        fail(connection, f"j{number:02}", number, error="OSError: full" if number % 3 == 0 else "ValueError: no")
    wanted = {"queue": "q", "type": "shop.jobs.Mail", "error": "full"}
    assert "expected" in post(client, "jobs/retry", 400, **wanted)["error"]
    refused = post(client, "jobs/retry", 409, **wanted, expected=3)
    assert "4 jobs match by now" in refused["error"]
    assert Queue("q", connection=connection).count == 0
    done = post(client, "jobs/retry", **wanted, expected=4)
    assert done["count"] == 4 and sorted(Queue("q", connection=connection).job_ids) == ["j00", "j03", "j06", "j09"]
    last, first = rqmem.api.actions(connection=connection)
    assert first.text == "begins: 4 failed jobs match" and last.count == 4
    assert (last.queue, last.job_type, last.error) == ("q", "shop.jobs.Mail", "full")


def test_more_jobs_than_one_request_retries_are_said_to_be_left(
    connection: Redis, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqmem.acting.MOST_AT_ONCE", 2)
    for number in range(5):
        fail(connection, f"j{number}", number)
    done = post(client, "jobs/retry", expected=5)
    assert done["count"] == 2 and "3 are left" in done["text"]


def test_the_button_says_how_many_jobs_it_retries(
    connection: Redis, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        fail(connection, f"j{number}", number)
    assert '<button class="main">Retry 3 jobs</button>' in app.test_client().get("/jobs/retry").text
    monkeypatch.setattr("rqmem.dashboard.action_views.MOST_AT_ONCE", 2)
    assert '<button class="main">Retry 2 jobs</button>' in app.test_client().get("/jobs/retry").text


def test_a_queue_is_paused_and_resumed(connection: Redis, client: FlaskClient) -> None:
    assert "paused" in post(client, "queues/q/pause")["text"]
    assert pausing.paused(connection) == {"q"}
    post(client, "queues/q/resume")
    assert pausing.paused(connection) == set()
    assert [each.what for each in rqmem.api.actions(connection=connection)] == ["resume", "pause"]


def test_a_queue_without_a_name_is_not_paused(connection: Redis, client: FlaskClient) -> None:
    assert "queue name ' ' is empty" in str(post(client, "queues/%20/pause", 400))
    assert pausing.paused(connection) == set()


FORMS = ["/jobs/j1/retry", "/jobs/j1/cancel", "/jobs/retry", "/queues/q/pause", "/queues/q/resume"]


@pytest.mark.parametrize("path", FORMS)
def test_a_form_asks_first_and_does_it_with_its_token(connection: Redis, app: Flask, path: str) -> None:
    fail(connection, "j1", 1)
    with app.test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        page = client.get(path)
        assert page.status_code == 200, page.text
        assert rqmem.api.actions(connection=connection) == [], "looking does nothing"
        hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        without = client.post(path, data={name: text for name, text in hidden.items() if name != "csrf_token"})
        assert without.status_code == 400
        done = client.post(path, data=hidden)
        assert done.status_code == 303, done.text
        shown = client.get(done.headers["Location"])
        assert shown.status_code == 200 and 'class="notice' in shown.text
    if path == "/jobs/j1/retry":
        assert connection.hget("rq:job:j1", "status") == b"queued"


def test_a_form_whose_count_has_grown_is_refused(connection: Redis, app: Flask) -> None:
    fail(connection, "j1", 1)
    with app.test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', client.get("/jobs/retry?queue=q").text))
        fail(connection, "j2", 2)
        refused = client.post("/jobs/retry", data=hidden)
        assert refused.status_code == 409 and "2 jobs match by now" in refused.text
    assert Queue("q", connection=connection).count == 0


def test_no_page_and_no_body_loads_a_pickle(filled: Redis, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Each GET of the application, over a Redis whose jobs are traps."""
    fail(filled, "j1", 1)
    filled.hset("rq:job:j2", "meta", pickle.dumps(Bomb()))

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr("rq.serializers.DefaultSerializer.loads", loaded)
    values = {"job_id": "j1", "job_type": JOB, "queue": "q", "filename": "app.css"}
    with app.test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        for rule in app.url_map.iter_rules():
            if "GET" in (rule.methods or ()) and rule.endpoint != "live.events" and not rule.rule.startswith("/rq/"):
                path = app.url_map.bind("localhost").build(rule.endpoint, {a: values[a] for a in rule.arguments})
                answer = client.get(path)
                assert answer.status_code < 500, (path, answer.text)
