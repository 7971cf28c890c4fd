"""All deliveries of one process: a thread for each URL, started together and stopped together."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence

from redis import Redis

from rqmem.alerts.addresses import Address
from rqmem.alerts.delivery import Delivery, RedisAway
from rqmem.alerts.service import Service
from rqmem.store.alerts.alert_outbox import Outbox

DRAIN_SECONDS = 10.0
"""How long it goes on sending what is there after it was asked to stop."""


class Sender:
    """Sends each alert to each address.

    Args:
        connection: each thread takes one of its own from its pool.
        addresses, services: in the same order.
        name: of this sender among those of an address; one that begins again under its old name goes on at once
            with what it had taken. None: a new one.
    """

    def __init__(
        self, connection: Redis, addresses: Sequence[Address], services: Sequence[Service], name: str | None = None
    ) -> None:
        own = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._stopping = threading.Event()
        self._outboxes = [Outbox(connection, each.group, own) for each in addresses]
        away = RedisAway()
        self._threads = [
            threading.Thread(
                target=Delivery(outbox, service, away, self._stopping).run, name=service.shown, daemon=True
            )
            for outbox, service in zip(self._outboxes, services, strict=True)
        ]

    def start(self) -> None:
        """From now on no alert is missed. Raises redis-py's errors."""
        for outbox in self._outboxes:
            outbox.open()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send what is there, for at most `DRAIN_SECONDS`; what is left is the next sender's."""
        self._stopping.set()
        deadline = time.monotonic() + DRAIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
