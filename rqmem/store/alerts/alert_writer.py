"""All writes of alerts. Each is one script, so only one of many workers that find the same alert raises it.

An alert is identified by its rule and job type. After it was raised, the same alert is only counted until its cool-down
is over; the next one says how many there were. An alert that can end stays open until the worker that raised it says
that it has ended, or another worker finds that worker dead.
"""

from __future__ import annotations

from dataclasses import replace

from redis import Redis

from rqmem.store import codec, execution_reader, keys
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.history import history_reader
from rqmem.store.history.kept_types import kept_as
from rqmem.store.scripts import script

KEPT_ALERTS, KEPT_OPEN = 1000, 500
_COUNT_KEPT_MS = 3600 * 1000  # how long the count is kept after the cool-down


def raise_alert(connection: Redis, alert: Alert, cooldown_seconds: float, *, can_end: bool) -> Alert | None:
    """Raise an alert. Returns it with its id and the number of suppressed ones; None if it was only counted.

    Args:
        alert: its id is ignored.
        cooldown_seconds: how long alerts of this rule and job type are only counted from now on. Job types without
            figures of their own (`rqmem.store.history.kept_types`) count as one.
        can_end: it stays open until `resolve_alert`.
    """
    kept = kept_as(connection, [alert.job], alert.at).get(alert.job, alert.job)
    raised = script(connection, "raise_alert")(
        keys=[keys.quiet(alert.rule, kept), keys.ALERTS, keys.OPEN_ALERTS],
        args=[
            alert.to_entry()["alert"],
            max(1, round(1000 * cooldown_seconds)),
            _COUNT_KEPT_MS,
            KEPT_ALERTS,
            alert.opened.field if can_end else "",
            codec.to_json(alert.opened),
            KEPT_OPEN,
        ],
    )
    return None if raised is None else replace(alert, id=raised[0].decode(), suppressed=int(raised[1]))


def resolve_alert(connection: Redis, alert: Alert) -> Alert | None:
    """End the open alert of this rule and job type; None if its worker has no such alert open."""
    entry_id = script(connection, "resolve_alert")(
        keys=[keys.OPEN_ALERTS, keys.ALERTS],
        args=[alert.opened.field, alert.worker, alert.to_entry()["alert"], KEPT_ALERTS],
    )
    return None if entry_id is None else replace(alert, id=entry_id.decode())


def end_alerts_of_lost_workers(connection: Redis, now: float) -> list[Alert]:
    """End the open alerts of dead workers; returns those that this call has ended."""
    ended = []
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
                ended.append(resolved)
    return ended
