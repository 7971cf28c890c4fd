"""Django: between two jobs of a horse everything is as between two requests, and a new horse has its own connections.

What a job left is put back: an open transaction is rolled back (also that of an ``atomic`` which was never left),
autocommit is as the settings say, connections that cannot be used or are too old are closed, as are caches; queries
that ``DEBUG`` keeps are forgotten; language, time zone, URLconf and script prefix are those of before the first job.
A connection that its server has closed since the last job is found before the next one, with or without
``CONN_HEALTH_CHECKS``.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.cache import close_caches
from django.db import close_old_connections, connections, reset_queries
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from rqmem import hooks

_of_our_parent: list[Any] = []  # kept, since their finalizers would end the parent's sessions
_at_first: dict[str, Any] = {}


@hooks.horse_started
def take_no_connection_of_the_parent() -> None:
    if not settings.configured:
        return
    for connection in _opened():
        pools = getattr(type(connection), "_connection_pools", None)
        if pools:
            _of_our_parent.append(pools.pop(connection.alias, None))
        if connection.connection is not None and not _in_memory(connection):
            _of_our_parent.append(connection.connection)
            connection.connection = None
            _forget_transaction(connection)


def _remember() -> None:
    """What is active for this thread before its first job."""
    _at_first.update(
        language=translation.get_language() if settings.USE_I18N else None,
        zone=timezone.get_current_timezone(),
        zone_is_default=timezone.get_current_timezone() == timezone.get_default_timezone(),
        urlconf=get_urlconf(),
        prefix=get_script_prefix(),
    )


@hooks.before_job
def begin(job: Any) -> None:
    if not settings.configured:
        return
    if not _at_first:
        _remember()
    reset_queries()
    close_old_connections()
    for connection in _opened():
        if connection.connection is not None and not connection.in_atomic_block and not connection.is_usable():
            connection.close()


@hooks.after_job
def end(job: Any, outcome: str) -> None:
    if not settings.configured:
        return
    for connection in _opened():
        _end_transaction(connection)
    close_old_connections()
    reset_queries()
    close_caches()
    _reset_threads_state()


def _opened() -> list[Any]:
    """The connections of this thread that have been asked for."""
    return list(connections.all(initialized_only=True))


def _end_transaction(connection: Any) -> None:
    """Whatever of one is open: Django does not know of one that SQL began."""
    _forget_transaction(connection)
    if connection.connection is None:
        return
    try:
        connection.rollback()
        if connection.get_autocommit() != connection.settings_dict["AUTOCOMMIT"]:
            connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
    except Exception:  # noqa: BLE001  whatever a driver raises: it cannot be used any more
        connection.close()


def _forget_transaction(connection: Any) -> None:
    connection.in_atomic_block = connection.needs_rollback = connection.closed_in_transaction = False
    connection.commit_on_exit = True
    connection.savepoint_ids, connection.atomic_blocks, connection.run_on_commit = [], [], []


def _in_memory(connection: Any) -> bool:
    return connection.vendor == "sqlite" and connection.is_in_memory_db()


def _reset_threads_state() -> None:
    if not _at_first:  # the job itself has set Django up
        translation.deactivate()
        timezone.deactivate()
        set_urlconf(None)
        return
    if settings.USE_I18N and translation.get_language() != _at_first["language"]:
        if _at_first["language"] is None:
            translation.deactivate_all()
        else:
            translation.activate(_at_first["language"])
    if timezone.get_current_timezone() != _at_first["zone"]:
        if _at_first["zone_is_default"]:
            timezone.deactivate()
        else:
            timezone.activate(_at_first["zone"])
    set_urlconf(_at_first["urlconf"])
    set_script_prefix(_at_first["prefix"])
