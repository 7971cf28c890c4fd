"""Who may do what, on every route that the application has: a new route cannot be forgotten."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from rqmem.dashboard import create_app
from rqmem.dashboard.options import from_environ
from rqmem.dashboard.security import HEADERS, is_loopback
from rqmem.dashboard.serving import check
from rqmem.dashboard.state import Attempts
from rqmem.errors import ConfigError

Urls = Callable[[Flask], list[tuple[str, str, set[str]]]]
PASSWORD = "correct horse battery"
OPEN = {"static", "security.log_in"}
WRITING = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def with_password(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("RQMEM_DASHBOARD_PASSWORD", PASSWORD)
    return create_app(connection=connection)


def token_in(page: str) -> str:
    return page.split('name="csrf_token" value="')[1].split('"')[0]


def log_in(client: Any, password: str = PASSWORD, url: str = "/login", **more: Any) -> Any:
    token = token_in(client.get("/login", **more).text)
    return client.post(url, data={"csrf_token": token, "password": password}, **more)


def test_every_route_answers_with_all_headers(app: Flask, filled: Redis, urls: Urls) -> None:
    for endpoint, url, _ in urls(app):
        for method in ("GET", "POST"):
            answer = app.test_client().open(url, method=method)
            for name, value in HEADERS.items():
                assert name in answer.headers, (endpoint, method)
                if name not in ("Cache-Control", "Content-Security-Policy"):
                    assert answer.headers[name] == value, (endpoint, method)
            allowed = answer.headers["Content-Security-Policy"]
            if endpoint.startswith("rq_dashboard."):  # its pages have styles of their own
                [allowed] = re.findall(r"script-src[^;]*", allowed)
            assert "unsafe-inline" not in allowed, endpoint
            assert answer.status_code != 500, (endpoint, method, answer.text[:300])


def test_every_page_answers(app: Flask, filled: Redis, urls: Urls) -> None:
    for endpoint, url, methods in urls(app):
        if endpoint.startswith("pages.") and "GET" in methods:
            answer = app.test_client().get(url, follow_redirects=True)
            assert answer.status_code in (200, 404), (endpoint, answer.text[:300])
            assert answer.status_code == 200 or endpoint == "pages.search"


def test_a_stranger_gets_nothing_from_any_route(with_password: Flask, urls: Urls) -> None:
    for endpoint, url, methods in urls(with_password):
        for method in methods | {"GET"}:
            answer = with_password.test_client().open(url, method=method)
            if endpoint in OPEN:
                continue
            if answer.status_code == 302:
                assert answer.headers["Location"].startswith("/login?next="), endpoint
                assert method in ("GET", "HEAD")
            else:
                assert answer.status_code == 401, (endpoint, method)
    assert with_password.test_client().get("/no/such/page").status_code == 302


def test_a_stranger_is_not_told_which_redis_it_is(app: Flask, connection: Redis) -> None:
    """Nor where to go on: each page would refuse again."""
    page = app.test_client().get("/", headers={"Host": "elsewhere.example"}).text
    assert "This dashboard is not for" in page
    assert 'class="where"' not in page
    assert "<nav" not in page
    assert "<form" not in page


def test_a_login_of_the_host_program_decides(connection: Redis, filled: Redis, urls: Urls) -> None:
    for access, status in (("read", 403), (None, 401), ("something else", 401)):
        app = create_app(connection=connection, login=lambda request, access=access: access)  # type: ignore[misc]
        for endpoint, url, _ in urls(app):
            if endpoint in OPEN:
                continue
            for method in WRITING:
                assert app.test_client().open(url, method=method).status_code == status, (endpoint, method, access)
            if access is None:
                assert app.test_client().get(url).status_code == 401, endpoint
        if access == "read":
            assert app.test_client().get("/").status_code == 200
            assert app.test_client().get("/", headers={"Host": "shop.example"}).status_code == 200


def test_a_read_only_dashboard_changes_nothing_for_anybody(connection: Redis, filled: Redis, urls: Urls) -> None:
    app = create_app(connection=connection, read_only=True)
    for endpoint, url, _ in urls(app):
        if endpoint in OPEN:
            continue
        for method in WRITING:
            assert app.test_client().open(url, method=method).status_code == 403, (endpoint, method)
    assert app.test_client().get("/").status_code == 200


def test_every_post_needs_the_token_of_a_form(app: Flask, filled: Redis, urls: Urls) -> None:
    posts = [url for endpoint, url, methods in urls(app) if "POST" in methods and endpoint != "security.log_in"]
    assert posts
    for url in posts:
        answer = app.test_client().post(url, data={"csrf_token": "guessed"})
        assert answer.status_code == 400, url


def test_a_program_with_the_token_needs_no_form(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQMEM_DASHBOARD_TOKEN", "a-token-of-a-program")
    monkeypatch.setenv("RQMEM_DASHBOARD_PASSWORD", PASSWORD)
    client = create_app(connection=connection).test_client()
    for token, status in (("a-token-of-a-program", 302), ("another-token", 401), ("", 401)):
        answer = client.post("/logout", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status, token


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9181", "localhost.evil.example", "10.0.0.7", "[::2]"])
def test_an_open_dashboard_answers_under_names_of_this_machine_only(app: Flask, urls: Urls, host: str) -> None:
    for _, url, _ in urls(app):
        assert app.test_client().get(url, headers={"Host": host}).status_code == 403, url


@pytest.mark.parametrize("host", ["localhost", "localhost:9181", "127.0.0.1:80", "127.1.2.3", "[::1]:9181", "[::1]"])
def test_names_of_this_machine(host: str, app: Flask) -> None:
    assert is_loopback(host)
    assert app.test_client().get("/login", headers={"Host": host}).status_code == 302


def test_the_password_lets_in_and_a_wrong_one_does_not(with_password: Flask) -> None:
    client = with_password.test_client()
    assert log_in(client, "wrong").status_code == 401
    assert client.get("/").status_code == 302
    assert log_in(client).headers["Location"] == "/"
    page = client.get("/")
    assert page.status_code == 200
    assert "Log out" in page.text
    client.post("/logout", data={"csrf_token": token_in(page.text)})
    assert client.get("/").status_code == 302


def test_five_wrong_passwords_make_an_address_wait(with_password: Flask) -> None:
    client = with_password.test_client()
    assert [log_in(client, "wrong").status_code for _ in range(6)] == [401] * 5 + [429]
    assert log_in(client).status_code == 429
    elsewhere = {"environ_base": {"REMOTE_ADDR": "10.0.0.8"}}
    assert log_in(with_password.test_client(), **elsewhere).status_code == 302


def test_an_address_waits_a_minute() -> None:
    attempts = Attempts()
    for second in range(5):
        assert not attempts.too_many("a", second)
        attempts.add("a", second)
    assert attempts.too_many("a", 59.9)
    assert not attempts.too_many("a", 60.0)
    for number in range(5000):
        attempts.add(str(number), 100)
    assert len(attempts.wrong) == 1000


def test_the_cookie_is_for_no_script_and_no_other_site(with_password: Flask) -> None:
    for host, secure in (("localhost", False), ("ops.example", True)):
        cookie = with_password.test_client().get("/login", headers={"Host": host}).headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert ("Secure" in cookie) == secure


def test_a_new_password_ends_old_logins(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQMEM_DASHBOARD_SECRET", "the same in all processes")
    monkeypatch.setenv("RQMEM_DASHBOARD_PASSWORD", PASSWORD)
    client = create_app(connection=connection).test_client()
    log_in(client)
    cookie = client.get_cookie("rqmem_dashboard")
    assert cookie is not None
    for password, status in ((PASSWORD, 200), ("another password", 302)):
        monkeypatch.setenv("RQMEM_DASHBOARD_PASSWORD", password)
        other = create_app(connection=connection).test_client()
        other.set_cookie("rqmem_dashboard", cookie.value)
        assert other.get("/").status_code == status


@pytest.mark.parametrize(
    "asked",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nSet-Cookie: x=y"],
)
def test_a_login_leads_to_no_other_site(with_password: Flask, asked: str) -> None:
    from urllib.parse import quote

    answer = log_in(with_password.test_client(), url=f"/login?next={quote(asked)}")
    assert answer.headers["Location"] == "/"


def test_a_login_leads_to_the_page_that_was_asked_for(with_password: Flask) -> None:
    client = with_password.test_client()
    asked = client.get("/types?window=7d").headers["Location"]
    assert log_in(client, url=asked).headers["Location"] == "/types?window=7d"


def test_a_short_password_is_refused() -> None:
    with pytest.raises(ConfigError, match="RQMEM_DASHBOARD_PASSWORD has 7 characters: give at least 12"):
        from_environ({"RQMEM_DASHBOARD_PASSWORD": "secret!"})
    with pytest.raises(ConfigError, match="RQMEM_DASHBOARD_TOKEN has 1 characters"):
        from_environ({"RQMEM_DASHBOARD_TOKEN": "x"})


def test_the_password_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    options = from_environ({"RQMEM_DASHBOARD_PASSWORD_FILE": str(file)})
    assert options.password == PASSWORD
    assert PASSWORD not in repr(options)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        from_environ({"RQMEM_DASHBOARD_PASSWORD_FILE": str(file)})
    with pytest.raises(ConfigError, match="cannot be read"):
        from_environ({"RQMEM_DASHBOARD_PASSWORD_FILE": str(tmp_path / "none")})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is a pipe"):
        from_environ({"RQMEM_DASHBOARD_PASSWORD_FILE": str(tmp_path / "pipe")})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "ops.example"])
def test_others_reach_it_with_a_password_only(host: str) -> None:
    with pytest.raises(ConfigError, match="set RQMEM_DASHBOARD_PASSWORD"):
        check(host, from_environ({}))
    check(host, from_environ({"RQMEM_DASHBOARD_PASSWORD": PASSWORD}))
    for own in ("127.0.0.1", "localhost", "::1"):
        check(own, from_environ({}))
