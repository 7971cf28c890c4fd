"""The stream of alerts for one receiver: a consumer group, which any number of senders may serve.

Each alert is taken by one sender, which keeps it until `done`; others take over the alerts of a dead sender. So each
alert is handled at least once. Works from Redis 5 on, also when the journal is cleared meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from redis import Redis
from redis.exceptions import ResponseError

from rqmem.store import keys
from rqmem.store.alerts.alert_records import Alert

T = TypeVar("T")

_LEFT_MS = 3600 * 1000  # an idle sender without alerts is forgotten after this time


class Outbox:
    """The alerts of ``group`` for one ``consumer``. All methods raise redis-py's errors."""

    def __init__(self, connection: Redis, group: str, consumer: str) -> None:
        self._connection = connection
        self._group = group
        self._consumer = consumer
        self._after = ""

    def open(self) -> None:
        """Make the group, unless it exists. It gets the alerts from now on."""
        if not self._after:
            newest = cast("list[tuple[bytes, Any]]", self._connection.xrevrange(keys.ALERTS, count=1))
            self._after = newest[0][0].decode() if newest else "0-0"
        try:
            self._connection.xgroup_create(keys.ALERTS, self._group, id=self._after, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def take(self, limit: int, wait_seconds: float = 0) -> list[Alert]:
        """New alerts, oldest first, as soon as there are any; none if there are none within ``wait_seconds``."""
        return self._unless_gone(lambda: self._read(">", limit, round(1000 * wait_seconds) or None))

    def take_again(self, limit: int) -> list[Alert]:
        """Alerts that this consumer had taken before it was started again, and not done."""
        return self._unless_gone(lambda: self._read("0", limit, None))

    def take_over(self, idle_seconds: float, limit: int) -> list[Alert]:
        """Alerts that others have taken and neither done nor held (`hold`) for ``idle_seconds``: they are dead."""
        return self._unless_gone(lambda: self._claim(round(1000 * idle_seconds), limit))

    def hold(self, ids: Sequence[str]) -> None:
        """Keep these alerts, so that nobody takes them over."""
        if ids:
            self._unless_gone(lambda: self._xclaim(0, list(ids), justid=True))

    def done(self, ids: Sequence[str], dropped: int = 0) -> None:
        """These alerts are handled. ``dropped``: how many of them were given up, which is counted."""
        with self._connection.pipeline(transaction=False) as pipeline:
            if ids:
                pipeline.xack(keys.ALERTS, self._group, *ids)
            if dropped:
                pipeline.hincrby(keys.DROPPED, "alerts", dropped)
            pipeline.execute()

    def leave(self) -> None:
        """Remove this consumer, which has no alerts left."""
        self._unless_gone(lambda: [self._connection.xgroup_delconsumer(keys.ALERTS, self._group, self._consumer)])

    def _unless_gone(self, step: Callable[[], list[T]]) -> list[T]:
        """Do ``step``; if the journal was cleared or lost, make the group again and return nothing."""
        try:
            return step()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self.open()
            return []

    def _claim(self, idle_ms: int, limit: int) -> list[Alert]:
        pending = cast(
            "list[dict[str, Any]]", self._connection.xpending_range(keys.ALERTS, self._group, "-", "+", limit)
        )
        theirs = [
            each["message_id"]
            for each in pending
            if each["consumer"].decode() != self._consumer and each["time_since_delivered"] >= idle_ms
        ]
        self._forget_who_left()
        if not theirs:
            return []
        claimed = self._xclaim(idle_ms, theirs)
        for entry_id in set(theirs) - {each[0] for each in claimed}:
            if not self._connection.xrange(keys.ALERTS, entry_id, entry_id):  # trimmed from the stream
                self._connection.xack(keys.ALERTS, self._group, entry_id)
        return self._alerts(claimed)

    def _xclaim(self, idle_ms: int, ids: Sequence[bytes | str], *, justid: bool = False) -> list[Any]:
        claimed = self._connection.xclaim(keys.ALERTS, self._group, self._consumer, idle_ms, list(ids), justid=justid)
        return cast("list[Any]", claimed)

    def _read(self, since: str, limit: int, block: int | None) -> list[Alert]:
        answer = self._connection.xreadgroup(
            self._group, self._consumer, {keys.ALERTS: since}, count=limit, block=block
        )
        streams = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer or [])
        return [alert for _, entries in streams for alert in self._alerts(entries)]

    def _alerts(self, entries: Iterable[tuple[bytes | None, dict[bytes, bytes] | None]]) -> list[Alert]:
        """The alerts in these entries. Entries that are none, or were trimmed, are acknowledged."""
        alerts = []
        for entry_id, entry in entries:
            if entry_id is None:
                continue
            self._after = max(self._after, entry_id.decode(), key=_order)
            try:
                alerts.append(Alert.from_entry(entry_id, entry or {}))
            except (KeyError, TypeError, ValueError, AttributeError):
                self._connection.xack(keys.ALERTS, self._group, entry_id)
        return alerts

    def _forget_who_left(self) -> None:
        consumers = self._connection.xinfo_consumers(keys.ALERTS, self._group)
        for each in consumers:
            name = each["name"].decode()
            if name != self._consumer and each["pending"] == 0 and each["idle"] > _LEFT_MS:
                self._connection.xgroup_delconsumer(keys.ALERTS, self._group, name)


def _order(entry_id: str) -> tuple[int, int]:
    at, _, number = (entry_id or "0-0").partition("-")
    return int(at), int(number)
