"""The dashboard in a Django project, for its staff::

    path("memory/", include("rqmem.dashboard.django"))

Where django-rq is in the admin, a link below its queues leads here. Staff may look. Superusers may act, or, with
``RQMEM_DASHBOARD_ACT_PERMISSION = "app.permission"`` in the settings, those who have that permission. Redis is that of
django-rq's ``default`` queue, or, without django-rq, the one that ``rqmem.connect()`` chooses.
``RQMEM_DASHBOARD_OPTIONS`` has more arguments for `rqmem.dashboard.create_app`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpResponse
from django.urls import NoReverseMatch, re_path, reverse
from django.views.decorators.csrf import csrf_exempt

from rqmem.dashboard import create_app
from rqmem.dashboard.mounting import answer_of

if TYPE_CHECKING:
    from django.http import HttpRequest
    from flask import Flask, Request

    from rqmem.dashboard.options import Access

_ACCESS = "rqmem.access"


def _dashboard(request: HttpRequest, path: str) -> HttpResponse:
    environ = {
        **request.META,
        "wsgi.input": BytesIO(request.body),
        "REMOTE_USER": request.user.get_username(),
        _ACCESS: "act" if _may_act(request.user) else "read",
    }
    answer = answer_of(_app(), environ, request.path, path)
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


def _link_from_admin() -> None:
    """Let the admin's list name the dashboard below django-rq's queues; who sees those sees the link."""
    if not (apps.is_installed("django_rq") and apps.is_installed("django.contrib.admin")):
        return
    listed = admin.site.get_app_list

    def with_link(request: HttpRequest, app_label: str | None = None) -> Any:
        found = listed(request, app_label)
        for each in found:
            if each["app_label"] == "django_rq":
                with suppress(NoReverseMatch):  # it is included under a namespace of the project's own
                    url = reverse("rqmem_dashboard", kwargs={"path": ""})
                    each["models"].append({"name": "Memory", "object_name": "Memory", "admin_url": url, "add_url": None,
                                           "view_only": True, "perms": {"view": True}})  # fmt: skip
        return found

    admin.site.get_app_list = with_link


_link_from_admin()


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
