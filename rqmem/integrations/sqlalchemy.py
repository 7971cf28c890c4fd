"""SQLAlchemy: a job leaves no session and no transaction to the next one, and no horse uses its parent's connections.

After each job the sessions that it began are rolled back and closed, as at the end of a request, and those of a
``scoped_session`` are removed. Transactions that it left open on connections of its own are rolled back. Sessions of a
thread that still runs are its own. A pooled connection is looked at when a job takes it first: one that its server has
closed since, or that a parent process opened, is replaced. Tables, engines and pools stay.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, close_all_sessions
from sqlalchemy.pool import Pool, SingletonThreadPool, StaticPool
from sqlalchemy.util import ScopedRegistry, ThreadLocalRegistry

from rqmem import hooks
from rqmem.worker.horse import object_kinds

_MARK = "rqmem"  # in a pooled connection's info: the process that opened it, and the last job that took it
_log = logging.getLogger("rqmem.hooks")
_begun: weakref.WeakKeyDictionary[Session, int | None] = weakref.WeakKeyDictionary()
_in_transaction: weakref.WeakKeyDictionary[Connection, int | None] = weakref.WeakKeyDictionary()
_scoped: weakref.WeakSet[Any] = weakref.WeakSet()  # registries that a job got its session from
_of_our_parent: list[Any] = []  # kept, since their finalizers would end the parent's sessions
_job_number = 0


@hooks.horse_started
def listen() -> None:
    for registry in (ScopedRegistry, ThreadLocalRegistry):
        registry.__call__ = _noted(registry.__call__)  # type: ignore[method-assign, assignment]
    event.listen(Session, "after_transaction_create", _session_begun)
    event.listen(Engine, "begin", _transaction_begun)
    event.listen(Pool, "connect", _opened)
    event.listen(Pool, "checkout", _taken)


@hooks.before_job
def begin(job: Any) -> None:
    global _job_number
    _job_number += 1


@hooks.after_job
def end(job: Any, outcome: str) -> None:
    if not _job_number:  # the job itself has imported SQLAlchemy: nobody listened
        close_all_sessions()
        return
    for session, thread in list(_begun.items()):
        if not _still_runs(thread):
            _close(session)
            _begun.pop(session, None)
    for registry in list(_scoped):
        registry.clear()
    _scoped.clear()
    for connection, thread in list(_in_transaction.items()):
        if not _still_runs(thread):
            _roll_back(connection)
            _in_transaction.pop(connection, None)


def _noted(get_session: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A registry's way to its session, which also notes the registry."""

    @functools.wraps(get_session)
    def get(registry: Any) -> Any:
        _scoped.add(registry)
        return get_session(registry)

    return get


def _session_begun(session: Session, transaction: Any) -> None:
    _begun[session] = threading.get_ident()


def _transaction_begun(connection: Connection) -> None:
    _in_transaction[connection] = threading.get_ident()


def _still_runs(thread: int | None) -> bool:
    """Whether it is another thread than this one, and alive: what it began is in use."""
    return thread != threading.get_ident() and any(each.ident == thread for each in threading.enumerate())


def _close(session: Session) -> None:
    """Roll back and close; by force where its connection is broken."""
    try:
        session.close()
    except Exception:  # noqa: BLE001  whatever the driver raises
        try:
            session.invalidate()
        except Exception as error:  # noqa: BLE001
            _log.warning("a session that a job left could not be closed: %s: %s", type(error).__name__, error)


def _roll_back(connection: Connection) -> None:
    """What is left of a transaction; the connection itself stays whose it is."""
    try:
        transaction = None if connection.closed else connection.get_transaction()
        if transaction is not None:
            transaction.rollback()
    except Exception:  # noqa: BLE001
        connection.invalidate()


def _opened(dbapi_connection: Any, record: Any) -> None:
    record.info[_MARK] = (os.getpid(), _job_number)


def _taken(dbapi_connection: Any, record: Any, proxy: Any) -> None:
    """Raise `DisconnectionError`, which has the pool open another one, for one that cannot be used."""
    here = (os.getpid(), _job_number)
    pid, number = record.info.get(_MARK, (None, 0))
    if pid is None and not object_kinds.inherited("sqlalchemy"):  # opened in this horse, before anybody listened
        pid = here[0]
    if pid != here[0] and not isinstance(proxy._pool, StaticPool | SingletonThreadPool):  # SQLite in memory: a copy
        _of_our_parent.append(dbapi_connection)
        record.dbapi_connection = proxy.dbapi_connection = None
        raise exc.DisconnectionError("a parent process opened this connection")
    if number != _job_number and not _answers(dbapi_connection, proxy):
        raise exc.DisconnectionError("the server has closed this connection")
    record.info[_MARK] = here


def _answers(dbapi_connection: Any, proxy: Any) -> bool:
    """As ``pool_pre_ping`` asks. A connection that belongs to an event loop which has ended does not answer either."""
    try:
        return bool(proxy._pool._dialect.do_ping(dbapi_connection))
    except Exception:  # noqa: BLE001  whatever the driver raises
        return False
