"""The dashboard inside another program: as a Flask blueprint, or as an ASGI application.

    app.register_blueprint(blueprint(url, login=who_may), url_prefix="/memory")      # Flask
    app.mount("/memory", asgi_app(url, login=who_may))                               # FastAPI, Starlette

`rqmem.dashboard.django` is for Django. The pages ask for news once a second there: events that stay open are for our
own server, which has threads for them.

``login`` is given each request and says what its sender may do (`rqmem.dashboard.create_app`). Without one, and without
``RQMEM_DASHBOARD_PASSWORD``, the dashboard answers under the names of this machine only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rqmem.dashboard import create_app
from rqmem.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flask import Blueprint, Response

_METHODS = ["GET", "HEAD", "POST"]


def blueprint(url: str | None = None, *, name: str = "rqmem_dashboard", **options: Any) -> Blueprint:
    """A Flask blueprint with the whole dashboard; the program around it is asked first, as for its own views.

    Args:
        url: of Redis, and ``options``: as for `rqmem.dashboard.create_app`, whose errors it raises.
        name: of the blueprint.
    """
    from flask import Blueprint, request

    app, mounted = create_app(url, **options), Blueprint(name, __name__)

    def view(path: str) -> Response:
        return answer_of(app, request.environ, request.script_root + request.path, path)

    mounted.add_url_rule("/", "dashboard", lambda: view(""), methods=_METHODS)
    mounted.add_url_rule("/<path:path>", "page", view, methods=_METHODS)
    return mounted


def asgi_app(url: str | None = None, **options: Any) -> Any:
    """An ASGI application with the whole dashboard; ``url`` and ``options`` as for `rqmem.dashboard.create_app`.

    Raises:
        ConfigError: a2wsgi is missing: ``pip install 'rqmem[asgi]'``.
    """
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError:
        raise ConfigError("the dashboard in an ASGI program needs a2wsgi: pip install 'rqmem[asgi]'") from None
    return WSGIMiddleware(create_app(url, **options))  # type: ignore[arg-type]


def answer_of(app: Any, environ: Mapping[str, Any], full: str, path: str) -> Response:
    """What a WSGI application answers under a path. ``full``: the path with all that it is mounted under."""
    from flask import Response
    from werkzeug.test import run_wsgi_app

    prefix = full.removesuffix(f"/{path}")
    under = {"SCRIPT_NAME": _as_wsgi(prefix), "PATH_INFO": _as_wsgi(f"/{path}")}
    body: Iterable[bytes]
    body, status, headers = run_wsgi_app(app, {**environ, **under})
    return Response(body, status, headers)


def _as_wsgi(text: str) -> str:
    """WSGI has the bytes of UTF-8 as characters."""
    return text.encode().decode("latin-1")
