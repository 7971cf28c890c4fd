"""Who may do what: one guard before every request, and the headers after it.

1. Without login and password, the Host must be a name of this machine: otherwise a page elsewhere could reach us by a
   name of its own that leads here (DNS rebinding).
2. A login, a password or a token says whether the sender may read or act.
3. In a dashboard that is read-only, or for one who may only read, every method but GET and HEAD answers 403.
4. All others need the CSRF token of a form, but for programs that send the bearer token: they send no cookie.

A route needs nothing of its own for this, so no route can forget it.
"""

from __future__ import annotations

import hmac
import re
import time
from hashlib import sha256
from ipaddress import ip_address

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import Unauthorized

from rqmem.dashboard.options import Access, Options
from rqmem.dashboard.state import WRONG_A_MINUTE, state

blueprint = Blueprint("security", __name__)
csrf = CSRFProtect()

_READING = ("GET", "HEAD")
_OPEN_TO_STRANGERS = ("static", "security.log_in")
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\x00-\x20\\]*")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Of every answer, unless the view has set its own."""


class _Sessions(SecureCookieSessionInterface):
    """Cookies for TLS only, but on this machine, where there is none."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return not is_loopback(request.host)


def protect(app: Flask, options: Options) -> None:
    """Guard all routes that this application has or will have."""
    app.config.update(
        SECRET_KEY=options.secret,
        SESSION_COOKIE_NAME="rqmem_dashboard",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=1_000_000,
        WTF_CSRF_CHECK_DEFAULT=False,  # `_guard` does, after the other questions
        WTF_CSRF_TIME_LIMIT=None,  # a page may stay open for days
        WTF_CSRF_SSL_STRICT=False,  # it wants the Referer, which we do not send
    )
    app.session_interface = _Sessions()
    csrf.init_app(app)
    app.before_request(_guard)
    app.after_request(_with_headers)
    app.context_processor(
        lambda: {"may_act": may_act(), "logged_in": bool(session.get("password")), "stranger": g.get("access") is None}
    )


def is_loopback(host: str) -> bool:
    """Whether that Host (with or without a port) is a name of this machine, which nobody elsewhere can give away."""
    name = re.sub(r":\d*$", "", host).strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def may_act() -> bool:
    """Whether the sender of this request may do more than read."""
    return getattr(g, "access", None) == "act" and not state().options.read_only


def _guard() -> ResponseReturnValue | None:
    options = state().options
    if options.open and not is_loopback(request.host):
        text = "Without a password it answers only as localhost or 127.0.0.1: set RQMEM_DASHBOARD_PASSWORD."
        abort(403, f"This dashboard is not for {request.host!r}. {text}")
    bearer = _has_token(options)
    g.access = "act" if bearer else _access(options)
    if request.endpoint in _OPEN_TO_STRANGERS:
        return None
    if g.access is None:
        return _stranger(options)
    if request.method not in _READING:
        if not may_act():
            abort(403, "This dashboard is read-only." if options.read_only else "You may read here, and not act.")
        if not bearer:
            csrf.protect()
    return None


def _access(options: Options) -> Access | None:
    if options.login is not None:
        answer = options.login(request)
        return answer if answer in ("read", "act") else None
    if options.password:
        known = str(session.get("password", ""))
        return "act" if hmac.compare_digest(known, _digest(options)) else None
    return "act"


def _has_token(options: Options) -> bool:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return bool(options.token) and kind.lower() == "bearer" and _same(token.strip(), options.token)


def _stranger(options: Options) -> ResponseReturnValue:
    if (
        options.login is None
        and options.password
        and request.method in _READING
        and not request.path.startswith("/api/")
    ):
        return redirect(url_for("security.log_in", next=request.full_path.rstrip("?")))
    raise Unauthorized(
        "Log in first." if options.password else "The program around this dashboard does not let you in."
    )


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> ResponseReturnValue:
    options, attempts = state().options, state().attempts
    if options.login is not None or not options.password:
        return redirect(url_for("pages.overview"))
    if request.method == "GET":
        return render_template("login.html", wrong=False)
    try:
        csrf.protect()
    except CSRFError:
        abort(400, "The browser sent no cookie back. Over http it keeps none: use https, or an SSH tunnel.")
    address, now = request.remote_addr or "", time.monotonic()
    if attempts.too_many(address, now):
        abort(429, f"{WRONG_A_MINUTE} wrong passwords within a minute: wait a minute.")
    if not _same(request.form.get("password", ""), options.password):
        attempts.add(address, now)
        return render_template("login.html", wrong=True), 401
    session.clear()
    session["password"] = _digest(options)
    asked = request.args.get("next", "")
    return redirect(request.script_root + asked if _LOCAL_PATH.fullmatch(asked) else url_for("pages.overview"))


@blueprint.route("/logout", methods=["POST"])
def log_out() -> ResponseReturnValue:
    session.clear()
    return redirect(url_for("security.log_in"))


def _digest(options: Options) -> str:
    """What a cookie proves that its sender knew the password; a changed password makes it worthless."""
    return hmac.new(options.secret.encode(), options.password.encode(), sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _with_headers(response: Response) -> Response:
    if request.endpoint == "static" and response.status_code in (200, 304) and "v" in request.args:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)
    return response
