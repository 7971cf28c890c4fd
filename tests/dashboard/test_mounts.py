"""The dashboard inside Flask, Django and FastAPI: pages, links with the prefix, actions, and who may come."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from urllib.parse import quote

import pytest
from flask import Flask, abort, request
from redis import Redis
from rq import Queue

import rqmem.api
from rqmem.dashboard.mounting import asgi_app, blueprint
from tests import forked
from tests.dashboard.test_api_v1 import fail

LINK = re.compile(r'(?:href|src|action)="(/[^"]*)"')


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSWORD", "PASSWORD_FILE", "TOKEN", "SECRET"):
        monkeypatch.delenv(f"RQMEM_DASHBOARD_{name}", raising=False)


def test_a_flask_program_has_it_as_a_blueprint(connection: Redis) -> None:
    fail(connection, "j1", 1)
    app = Flask("host")
    app.before_request(lambda: None if "X-Known" in request.headers else abort(401))
    mounted = blueprint(
        connection=connection, login=lambda inner: "act" if inner.headers["X-Known"] == "boss" else "read"
    )
    app.register_blueprint(mounted, url_prefix="/memory")
    boss, guest = {"X-Known": "boss"}, {"X-Known": "guest"}
    with app.test_client() as client:
        assert client.get("/memory/").status_code == 401, "the program around it is asked first"
        page = client.get("/memory/", headers=guest)
        assert page.status_code == 200
        links = LINK.findall(page.text)
        assert links and all(link.startswith("/memory/") for link in links)
        assert client.get(next(each for each in links if "app.css" in each), headers=guest).status_code == 200
        assert client.get("/memory/api/v1/live", headers=guest).get_json()["number"] > 0
        assert client.get("/memory/api/v1/events", headers=guest).status_code == 404
        assert client.post("/memory/jobs/j1/retry", headers=guest).status_code == 403
        form = client.get("/memory/jobs/j1/retry", headers=boss).text
        token = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
        done = client.post("/memory/jobs/j1/retry", data=token, headers=boss)
        assert done.status_code == 303 and done.headers["Location"] == "/memory/jobs/j1"
    assert Queue("q", connection=connection).job_ids == ["j1"]


def test_a_mounted_page_may_have_any_name_in_its_path(connection: Redis) -> None:
    app = Flask("host")
    app.register_blueprint(blueprint(connection=connection), url_prefix="/memory")
    client = app.test_client()
    for name in ("büro", "a b", "100%", "日本"):
        page = client.get(f"/memory/queues/{quote(name)}/pause")
        assert page.status_code == 200 and f"Pause queue {name}?" in page.text
        assert all(link.startswith("/memory/") for link in LINK.findall(page.text))


def test_a_fastapi_program_mounts_it(connection: Redis) -> None:
    fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
    pytest.importorskip("a2wsgi", reason="a2wsgi is not installed")
    from fastapi.testclient import TestClient

    app = fastapi.FastAPI()
    app.mount("/ops", asgi_app(connection=connection, login=lambda inner: "read"))
    with TestClient(app) as client:
        page = client.get("/ops/")
        assert page.status_code == 200
        links = LINK.findall(page.text)
        assert links and all(link.startswith("/ops/") for link in links)
        assert client.get("/ops/api/v1/overview").json()["version"] == 2
        assert client.get("/ops/api/v1/live").json()["number"] > 0
        assert client.post("/ops/queues/q/pause").status_code == 403


DJANGO = """
import json, os, re
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
                    "django.contrib.sessions", "django.contrib.messages", "django_rq"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware"],
    STATIC_URL="/static/",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
        "context_processors": ["django.template.context_processors.request",
                               "django.contrib.auth.context_processors.auth",
                               "django.contrib.messages.context_processors.messages"]}}],
    RQ_QUEUES={"default": {"URL": os.environ["TEST_REDIS_URL"]}},
)
django.setup()
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("memory/", include("rqmem.dashboard.django"))]
call_command("migrate", verbosity=0)
User.objects.create_superuser("ada", password="x")
User.objects.create_user("bob", password="x", is_staff=True)
User.objects.create_user("eve", password="x")
told = {}
for name in ("", "eve", "bob", "ada"):
    client = Client(enforce_csrf_checks=True)
    if name:
        client.login(username=name, password="x")
    page = client.get("/memory/")
    told[name] = {"page": page.status_code}
    if page.status_code == 200:
        told[name]["links"] = re.findall(r'(?:href|src|action)="(/[^"]*)"', page.content.decode())
        told[name]["api"] = json.loads(client.get("/memory/api/v1/overview").content)["version"]
        form = client.get("/memory/jobs/j1/retry").content.decode()
        told[name]["without"] = client.post("/memory/jobs/j1/retry").status_code
        token = dict(re.findall(r'name="(\\w+)" value="([^"]*)"', form))
        done = client.post("/memory/jobs/j1/retry", token)
        told[name]["post"] = [done.status_code, done.headers.get("Location", "")]
    told[name]["umlaut"] = re.findall("Pause queue b.ro", client.get("/memory/queues/b%C3%BCro/pause").content.decode())
    told[name]["admin"] = re.findall(r'href="(/memory/)"[^>]*>([^<]*)<', client.get("/admin/").content.decode())
print(json.dumps(told))
"""


def test_a_django_project_shows_it_to_its_staff(connection: Redis, redis_url: str) -> None:
    if find_spec("django_rq") is None:
        pytest.skip("django-rq is not installed")
    fail(connection, "j1", 1)
    done = forked.run_code(DJANGO, TEST_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [told[name]["page"] for name in ("", "eve", "bob", "ada")] == [302, 302, 200, 200]
    assert all(link.startswith("/memory/") for link in told["ada"]["links"]) and told["ada"]["api"] == 2
    assert (told["bob"]["without"], told["bob"]["post"][0]) == (403, 403), "staff may look"
    assert told["ada"]["without"] == 400 and told["ada"]["post"] == [303, "/memory/jobs/j1"]
    assert told["ada"]["umlaut"][0] == "Pause queue büro"
    assert told["ada"]["admin"][0] == ["/memory/", "Memory"], "below django-rq's queues"
    assert told[""]["admin"] == told["eve"]["admin"] == []
    [noted] = rqmem.api.actions(connection=connection)
    assert (noted.who, noted.what) == ("ada", "retry")
