"""Jobs that leave something behind, and jobs that see what others left."""

from __future__ import annotations

import os
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from rqmem import MemoryAwareJob
from tests.integrations.shop.models import Order


def count() -> int:
    return Order.objects.count()


def make(name: str) -> int:
    with transaction.atomic():
        return Order.objects.create(name=name).pk


def make_at_once(name: str) -> int:
    return Order.objects.create(name=name).pk


def backend() -> int:
    """Which session of PostgreSQL this horse has; its process keeps the connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def leave_autocommit_off() -> None:
    connection.set_autocommit(False)
    Order.objects.create(name="lost")


def leave_autocommit_off_and_fail() -> None:
    leave_autocommit_off()
    raise ValueError("failed")


def leave_atomic_open() -> None:
    transaction.atomic().__enter__()
    Order.objects.create(name="lost")


def leave_two_atomics_open() -> None:
    transaction.atomic().__enter__()
    transaction.atomic().__enter__()
    transaction.on_commit(lambda: Order.objects.create(name="lost"))
    Order.objects.create(name="lost")


def leave_atomic_broken() -> None:
    transaction.atomic().__enter__()
    try:
        Order.objects.create(name="x" * 51, pk="no number")
    except (DatabaseError, ValueError):
        connection.needs_rollback = True


def leave_connection_closed_in_atomic() -> None:
    transaction.atomic().__enter__()
    connection.close()


def leave_raw_transaction() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO shop_order (name) VALUES ('lost')")


def leave_state() -> None:
    translation.activate("de")
    timezone.activate("Asia/Kolkata")
    set_urlconf("other.urls")
    set_script_prefix("/elsewhere/")


def state() -> list[Any]:
    return [translation.get_language(), timezone.get_current_timezone_name(), get_urlconf(), get_script_prefix()]


def queries() -> int:
    """How many are kept, with one of its own."""
    Order.objects.count()
    return len(connection.queries)


def make_and_tell(name: str) -> None:
    """What `on_commit` is for: another job, once the row is there."""
    with transaction.atomic():
        order = Order.objects.create(name=name)
        transaction.on_commit(lambda: See.enqueue(pk=order.pk))


class See(MemoryAwareJob):
    queue = "shop"

    def handle(self, pk: int) -> str:
        return Order.objects.get(pk=pk).name


def horse() -> int:
    return os.getpid()
