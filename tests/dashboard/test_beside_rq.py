"""rq-dashboard 0.9 under ``/rq/``: inert, guarded, and without its defects. Its scripts are run by test_browser.py."""

from __future__ import annotations

import gc
import json
import pickle
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue

import rqmem.api
from rqmem.dashboard import beside_rq
from rqmem.dashboard.app import build
from rqmem.dashboard.options import Options
from rqmem.dashboard.serving import settle
from rqmem.store import ledger
from tests import children_jobs
from tests.conftest import WorkOff
from tests.dashboard.test_api_v1 import Bomb, fail
from tests.journal_filling import register

XSS = "<img src=x onerror=\"document.title='taken'\">"


def opened(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_HOST"] = "localhost"
    return client


@pytest.fixture
def client(connection: Redis) -> Iterator[FlaskClient]:
    with opened(build(connection, "redis", Options(with_rq_dashboard=True))) as client:
        yield client


def post(client: FlaskClient, path: str) -> Any:
    """With the token that the scripts of its pages send back."""
    client.get("/rq/")
    cookie = client.get_cookie("_csrf_token", "localhost")
    assert cookie is not None
    return client.post(path, headers={"X-CSRFToken": cookie.value})


def listed(client: FlaskClient, state: str = "failed", order: str = "asc", page: int = 1, rows: int = 8) -> Any:
    return client.get(f"/rq/0/data/jobs/q/{state}/{rows}/{order}/{page}.json").get_json()


def test_scripts_of_its_pages_have_a_nonce_and_no_others_run(connection: Redis, client: FlaskClient) -> None:
    fail(connection, "j1", 1)
    nonces = set()
    for path in ("/rq/", "/rq/0/view/workers", "/rq/0/view/jobs", "/rq/0/view/job/j1"):
        page = client.get(path)
        assert page.status_code == 200, path
        [nonce] = re.findall(r"script-src 'nonce-([^']+)'", page.headers["Content-Security-Policy"])
        scripts = re.findall(r"<script[^>]*>", page.text)
        assert scripts and all(f'nonce="{nonce}"' in each for each in scripts), path
        assert (
            "Memory" in page.text and "unsafe-inline" not in page.headers["Content-Security-Policy"].split("style")[0]
        )
        nonces.add(nonce)
    assert len(nonces) == 4
    assert 'href="/jobs/j1"' in client.get("/rq/0/view/job/j1").text, "the page of the job links to ours"


def test_texts_of_others_arrive_escaped(connection: Redis, client: FlaskClient) -> None:
    job = fail(connection, "j1", 1, queue=f"q{XSS}", error=f"ValueError: {XSS}")
    connection.hset(job.key, "description", XSS)
    register(connection, f"w{XSS}", f"q{XSS}")
    for path in ("job/j1.json", "workers.json", "queues.json"):
        answer = client.get(f"/rq/0/data/{path}")
        assert answer.status_code == 200, answer.text
        assert "<img" not in json.dumps(answer.get_json()) and "&lt;img" in answer.text, path


def test_texts_of_others_do_not_turn_the_direction_of_reading(connection: Redis, client: FlaskClient) -> None:
    evil = "\u202eexe.\x1b[31m\u2028"
    fail(connection, "j1", 1, queue=f"q{evil}", error=f"ValueError: {evil}")
    pages = [client.get(path).text for path in ("/", "/jobs", "/jobs/j1")]
    assert not set("".join(pages)) & set(evil[0] + "\x1b\u2028")
    assert "\\u202eexe.\\x1b" in pages[2]


def test_the_name_of_a_queue_is_no_code_of_a_script(connection: Redis, client: FlaskClient) -> None:
    """Scripts of its pages may run, so what stands in them as code would run too."""
    name = "'+(document.title='taken')+'"
    fail(connection, "j1", 1, queue=name)
    page = client.get(f"/rq/0/view/jobs/{quote(name, safe='')}/failed/8/asc/1").text
    assert "val('" not in page and "$(this).val(" in page
    assert f"'{name}'" not in page
    assert page.count("document.title=\\u0027taken") >= 2


def test_a_post_needs_the_token_that_its_script_sends_back(connection: Redis, client: FlaskClient) -> None:
    fail(connection, "j1", 1)
    assert client.post("/rq/job/j1/requeue").status_code == 400
    client.get("/rq/")
    cookie = client.get_cookie("_csrf_token", "localhost")
    assert cookie is not None and not cookie.http_only and cookie.same_site == "Strict"
    done = client.post("/rq/job/j1/requeue", headers={"X-CSRFToken": cookie.value})
    assert done.get_json() == {"status": "OK"}
    assert Queue("q", connection=connection).job_ids == ["j1"]
    [noted] = rqmem.api.actions(connection=connection)
    assert (noted.what, noted.job_id) == ("retry", "j1")
    again = client.post("/rq/job/j1/requeue", headers={"X-CSRFToken": cookie.value})
    assert again.status_code == 409


def test_nothing_is_requeued_by_reading(connection: Redis, client: FlaskClient) -> None:
    fail(connection, "j1", 1)
    assert client.get("/rq/requeue/q").status_code == 405
    assert Queue("q", connection=connection).count == 0


def test_all_of_a_queue_are_requeued_by_a_post(connection: Redis, client: FlaskClient) -> None:
    for number in range(3):
        fail(connection, f"j{number}", number)
    assert post(client, "/rq/requeue/q").get_json() == {"status": "OK", "count": 3}


def test_a_job_is_deleted_without_reading_what_it_carries(connection: Redis, client: FlaskClient) -> None:
    fail(connection, "j1", 1)
    Queue("q", connection=connection).enqueue("jobs.a.A.run", job_id="waits")
    for name in ("j1", "waits"):
        connection.hset(f"rq:job:{name}", mapping={"meta": pickle.dumps(Bomb()), "data": pickle.dumps(Bomb())})
        assert post(client, f"/rq/job/{name}/delete").get_json() == {"status": "OK"}
        assert not connection.exists(f"rq:job:{name}")
    assert connection.zcard("rq:failed:q") == connection.llen("rq:queue:q") == 0
    assert [(each.what, each.job_id) for each in rqmem.api.actions(connection=connection)] == [
        ("delete", "waits"),
        ("delete", "j1"),
    ]
    assert post(client, "/rq/job/j1/delete").status_code == 409


def test_nobody_waits_for_a_child_that_is_deleted(connection: Redis, client: FlaskClient, work_off: WorkOff) -> None:
    """Its parent gathers, as if somebody had cancelled the child."""
    connection.set("go on", 1)
    parent = children_jobs.Meta.enqueue(connection=connection)
    work_off("jobs", "--max-jobs", "1")
    assert post(client, f"/rq/job/{parent.id}-child-0/delete").get_json() == {"status": "OK"}
    work_off("jobs")
    assert parent.get_status(refresh=True) == "finished"
    assert dict(ledger.outcomes(connection, parent.id)) == {}


@pytest.mark.parametrize("state", ["queued", "failed"])
def test_a_list_is_emptied_without_reading_what_its_jobs_carry(
    connection: Redis, client: FlaskClient, state: str
) -> None:
    queue = Queue("q", connection=connection)
    for number in range(3):
        job = fail(connection, f"j{number}", number) if state == "failed" else queue.enqueue("jobs.a.A.run")
        connection.hset(job.key, mapping={"meta": pickle.dumps(Bomb()), "data": pickle.dumps(Bomb())})
    assert post(client, f"/rq/queue/q/{state}/empty").get_json() == {"status": "OK", "count": 3}
    assert queue.count == connection.zcard("rq:failed:q") == 0
    assert post(client, "/rq/queue/q/nonsense/empty").status_code == 404


def test_a_queue_is_compacted_where_it_is(connection: Redis, client: FlaskClient) -> None:
    queue = Queue("q", connection=connection)
    ids = [queue.enqueue("jobs.a.A.run", number).id for number in range(4)]
    connection.delete(f"rq:job:{ids[1]}", f"rq:job:{ids[3]}")
    assert post(client, "/rq/queue/q/compact").get_json() == {"status": "OK", "count": 2}
    assert connection.lrange("rq:queue:q", 0, -1) == [ids[0].encode(), ids[2].encode()]


def test_where_nobody_may_act_nothing_of_it_acts(connection: Redis) -> None:
    fail(connection, "j1", 1)
    app = build(connection, "redis", Options(with_rq_dashboard=True, read_only=True))
    with opened(app) as client:
        posts = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/rq/") and "POST" in rule.methods]
        assert len(posts) >= 5
        values = {"job_id": "j1", "queue_name": "q", "registry_name": "failed"}
        for rule in posts:
            path = app.url_map.bind("localhost").build(rule.endpoint, {a: values[a] for a in rule.arguments}, "POST")
            assert client.post(path).status_code == 403, path


def test_strangers_see_nothing_of_it(connection: Redis) -> None:
    app = build(connection, "redis", Options(with_rq_dashboard=True, password="a long password"))
    with opened(app) as client:
        for path in ("/rq/", "/rq/0/data/queues.json", "/rq/0/view/workers"):
            assert client.get(path).status_code in (302, 401), path


def test_a_job_with_dependencies_and_meta_that_is_a_trap_is_shown(connection: Redis, client: FlaskClient) -> None:
    queue = Queue("q", connection=connection)
    first = queue.enqueue("jobs.a.A.run", job_id="first")
    queue.enqueue("jobs.a.A.run", job_id="second", depends_on=first)
    connection.hset("rq:job:second", "meta", pickle.dumps(Bomb()))
    shown = client.get("/rq/0/data/job/second.json").get_json()
    assert (shown["depends_on"], shown["depends_on_status"], shown["status"]) == (["first"], ["active"], "deferred")
    assert client.get("/rq/0/data/job/nobody.json").status_code == 404
    assert client.get("/rq/0/view/job/nobody").status_code == 404
    assert client.get("/rq/0/data/jobs/q/nonsense/8/asc/1.json").status_code == 404
    assert client.get("/rq/1/view/queues").status_code == 404


def test_pages_have_the_rows_that_they_should(connection: Redis, client: FlaskClient) -> None:
    for number in range(20):
        fail(connection, f"j{number:02}", number)
    queue = Queue("q", connection=connection)
    waiting = [queue.enqueue("jobs.a.A.run", number).id for number in range(20)]
    ids = [[each["id"] for each in listed(client, page=page)["jobs"]] for page in (1, 2, 3)]
    assert ids == [[f"j{n:02}" for n in range(first, min(first + 8, 20))] for first in (0, 8, 16)]
    assert [each["id"] for each in listed(client, order="dsc")["jobs"]] == [f"j{n:02}" for n in range(19, 11, -1)]
    assert [each["id"] for each in listed(client, "queued", page=3)["jobs"]] == waiting[16:]
    assert [each["id"] for each in listed(client, "queued", "dsc")["jobs"]] == waiting[:11:-1]
    pagination = listed(client, page=2)["pagination"]
    assert (pagination["num_pages"], pagination["current_page"]) == (3, 2)


def test_another_version_is_not_mounted_and_our_pages_go_on(
    connection: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beside_rq, "version", lambda name: "0.10.1")
    with opened(build(connection, "redis", Options(with_rq_dashboard=True))) as client:
        assert client.get("/rq/").status_code == 404
        assert client.get("/").status_code == 200
    assert "rq-dashboard 0.10.1 is installed, and 0.9.x is tested" in caplog.text


def test_all_our_templates_are_read_before_the_first_visitor_also_beside_rqs(client: FlaskClient) -> None:
    app, usual = client.application, gc.get_threshold()
    settle(app)
    gc.unfreeze()
    gc.set_threshold(*usual)
    read = {name for _, name in app.jinja_env.cache or ()}
    assert "overview.html" in read and len(read) > 10


@pytest.mark.parametrize("path", ["/rq/0/view/workers", "/rq/0/data/workers.json", "/rq/", "/rq/0/data/queues.json"])
def test_a_look_at_workers_leaves_the_time_outs_of_the_process(
    client: FlaskClient, connection: Redis, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A `Worker` of RQ's makes them 415 s: with a Redis that hangs, all pages would hang so long."""
    register(connection, "ada", "mail")
    kwargs = connection.connection_pool.connection_kwargs
    monkeypatch.setitem(kwargs, "socket_timeout", 2.0)
    assert client.get(path).status_code == 200
    assert kwargs["socket_timeout"] == 2.0
