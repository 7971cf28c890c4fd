"""The dashboard in a Django project, for its staff::

    path("memory/", include("rqmem.dashboard.django"))

Staff may look. Superusers may act, or, with ``RQMEM_DASHBOARD_ACT_PERMISSION = "app.permission"`` in the settings,
those who have that permission. Redis is that of django-rq's ``default`` queue, or, without django-rq, the one that
``rqmem.connect()`` chooses. ``RQMEM_DASHBOARD_OPTIONS`` has more arguments for `rqmem.dashboard.create_app`.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpResponse
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt

from rqmem.dashboard import create_app
from rqmem.dashboard.mounting import answer_of

if TYPE_CHECKING:
    from django.http import HttpRequest
    from flask import Flask, Request

    from rqmem.dashboard.options import Access

_ACCESS = "rqmem.access"


def _dashboard(request: HttpRequest, path: str) -> HttpResponse:
    """All its pages."""
    rest = f"/{path}"
    full = request.get_full_path_info().partition("?")[0]
    environ = {
        **request.META,
        "SCRIPT_NAME": request.META.get("SCRIPT_NAME", "") + full[: len(full) - len(rest)],
        "PATH_INFO": rest,
        "wsgi.input": BytesIO(request.body),
        "REMOTE_USER": request.user.get_username(),
        _ACCESS: "act" if _may_act(request.user) else "read",
    }
    answer = answer_of(_app(), environ)
    response = HttpResponse(answer.get_data(), status=answer.status_code)
    for name, value in answer.headers:
        if name == "Set-Cookie":
            response.cookies.load(value)
        elif name != "Content-Length":
            response[name] = value
    return response


dashboard: Any = csrf_exempt(staff_member_required(_dashboard))  # it has CSRF tokens of its own

urlpatterns = [re_path(r"^(?P<path>.*)$", dashboard, name="rqmem_dashboard")]


def _may_act(user: Any) -> bool:
    permission = getattr(settings, "RQMEM_DASHBOARD_ACT_PERMISSION", "")
    return bool(user.has_perm(permission) if permission else user.is_superuser)


def _access(request: Request) -> Access | None:
    """What `dashboard` has found out; nobody comes here another way."""
    access: Access | None = request.environ.get(_ACCESS)
    return access


@cache
def _app() -> Flask:
    options = dict(getattr(settings, "RQMEM_DASHBOARD_OPTIONS", {}))
    if not {"url", "connection"} & options.keys():
        try:
            from django_rq import get_connection
        except ImportError:
            pass
        else:
            options["connection"] = get_connection("default")
    return create_app(**options, login=_access)
