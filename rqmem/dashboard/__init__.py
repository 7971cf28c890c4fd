"""The dashboard in the browser: pages and JSON over the read model, and a few actions. Flask is imported when used.

`create_app` makes a Flask application, for ``rqmem dashboard`` and for mounting in another program:

    from rqmem.dashboard import create_app

    app = create_app("redis://localhost:6379")

Parts: ``options`` (one value), ``security`` (who may do what), ``hub`` (one look at Redis for all viewers), the modules
of views (pages, API, actions), ``drawing`` (SVG, pure), ``serving`` (our own server). docs/dashboard.md is for people
who run it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask
    from redis import Redis

    from rqmem.dashboard.options import Login

ANSWER_SECONDS = 2.0
"""How long a page waits for an answer of Redis."""


def create_app(
    url: str | None = None,
    *,
    connection: Redis | None = None,
    login: Login | None = None,
    read_only: bool = False,
    hide_arguments: bool = False,
) -> Flask:
    """The dashboard as a Flask application, which is a WSGI application.

    Without ``login`` and without ``RQMEM_DASHBOARD_PASSWORD`` it answers only under the names of this machine
    (``localhost``, ``127.0.0.1``).

    Args:
        url: of Redis; None: chosen as for ``enqueue``. It need not answer yet.
        connection: used instead of ``url``.
        login: is given each ``flask.Request`` and returns what its sender may do: None for nothing, ``"read"``, or
            ``"act"`` (cancel, retry, suspend).
        read_only: no actions for anybody.
        hide_arguments: show the types of jobs without their arguments.

    Raises:
        ConfigError: ``url`` or a variable cannot be used.
        RqmemError: no Redis is named, and no embedded one runs here.
    """
    from rqmem.connection.connect import in_bytes
    from rqmem.connection.looking import to_look_at
    from rqmem.dashboard.app import build
    from rqmem.dashboard.options import from_environ

    options = from_environ(os.environ, login=login, read_only=read_only, hide_arguments=hide_arguments)
    if connection is not None:
        return build(in_bytes(connection), "Redis", options)
    return build(*to_look_at(url, ANSWER_SECONDS), options)
