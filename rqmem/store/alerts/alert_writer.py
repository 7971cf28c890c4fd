"""All writes of alerts. Each is one script, so that of many workers that find the same one, one tells it.

An alert is known by its rule and job type. Told once, it is not told again until its cool-down is over; those that
come meanwhile are counted, and the next that is told says how many. One that can end stays open until the worker
that raised it, or whoever sees that this worker is gone, says that it has ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rqmem.store import codec, execution_reader, keys
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history import history_reader
from rqmem.store.history.kept_types import kept_as
from rqmem.store.scripts import script

if TYPE_CHECKING:
    from redis import Redis

KEPT_ALERTS, KEPT_OPEN = 1000, 500
_COUNT_KEPT_MS = 3600 * 1000  # how long after its cool-down the number of those not told is remembered


def raise_alert(connection: Redis, alert: Alert, cooldown_seconds: float, *, can_end: bool) -> Alert | None:
    """Tell ``alert``; as it was told, with its id and how many were not; None: one like it was told lately.

    Args:
        alert: its id is not looked at.
        cooldown_seconds: of this one; nobody tells its rule and job type again before. Job types without figures of
            their own (`rqmem.store.history.kept_types`) count as one.
        can_end: it stays open until `resolve_alert`.
    """
    opened = Open(alert.rule, alert.job, alert.at, alert.worker, alert.text)
    kept = kept_as(connection, [alert.job], alert.at).get(alert.job, alert.job)
    told = script(connection, "raise_alert")(
        keys=[keys.quiet(alert.rule, kept), keys.ALERTS, keys.OPEN_ALERTS],
        args=[
            alert.to_entry()["alert"],
            max(1, round(1000 * cooldown_seconds)),
            _COUNT_KEPT_MS,
            KEPT_ALERTS,
            opened.field if can_end else "",
            codec.to_json(opened),
            KEPT_OPEN,
        ],
    )
    return None if told is None else replace(alert, id=told[0].decode(), suppressed=int(told[1]))


def resolve_alert(connection: Redis, alert: Alert) -> Alert | None:
    """Tell that what ``alert`` names has ended; None: its worker has no such alert open."""
    field = Open(alert.rule, alert.job, alert.at, alert.worker, alert.text).field
    told = script(connection, "resolve_alert")(
        keys=[keys.OPEN_ALERTS, keys.ALERTS], args=[field, alert.worker, alert.to_entry()["alert"], KEPT_ALERTS]
    )
    return None if told is None else replace(alert, id=told.decode())


def end_alerts_of_lost_workers(connection: Redis, now: float) -> list[Alert]:
    """Tell that the open alerts of workers that are gone have ended; those that this call told."""
    told = []
    still_open = history_reader.open_alerts(connection)
    gone = execution_reader.absent(connection, {each.worker for each in still_open}) if still_open else set()
    for each in still_open:
        if each.worker in gone:
            alert = Alert(
                id="", at=now, rule=each.rule, state="resolved", job=each.job, job_id="", queue="",
                worker=each.worker, text="its worker is gone",
            )  # fmt: skip
            resolved = resolve_alert(connection, alert)
            if resolved is not None:
                told.append(resolved)
    return told
