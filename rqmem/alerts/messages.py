"""How alerts read where they are sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Literal

from rqmem.policy.alert_rules import RULES
from rqmem.store.alerts.alert_records import Alert
from rqmem.text import printable
from rqmem.values import dataclass

Kind = Literal["info", "success", "warning", "failure"]
_NAMED = 3  # alerts of a summary that are listed one by one


@dataclass(frozen=True)
class Message:
    """``kind`` chooses colour and picture, where a service has such."""

    title: str
    body: str
    kind: Kind


def message(alerts: Sequence[Alert]) -> Message:
    """One alert, or several in one message: the first ones, and how many more."""
    if len(alerts) == 1:
        return _message(_name(alerts[0]), _lines(alerts[0]), _kind(alerts))
    lines = [f"{_name(each)}: {each.text}" for each in alerts[:_NAMED]]
    if len(alerts) > _NAMED:
        lines.append(f"and {len(alerts) - _NAMED} more; 'rqmem alerts' shows them")
    return _message(f"{len(alerts)} alerts", lines, _kind(alerts))


def _message(title: str, lines: Sequence[str], kind: Kind) -> Message:
    return Message(printable(f"rqmem: {title}"), "\n".join(map(printable, lines)), kind)


def trial(position: int) -> Message:
    """What ``rqmem alerts test`` sends."""
    return Message("rqmem: test", f"This is a test: alerts of rqmem will come here (alert URL {position}).", "info")


def _name(alert: Alert) -> str:
    about = f" [{alert.job}]" if alert.job else ""
    return f"{'resolved: ' if alert.state == 'resolved' else ''}{alert.rule}{about}"


def _lines(alert: Alert) -> list[str]:
    when = datetime.fromtimestamp(alert.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    where = {"job": alert.job_id, "queue": alert.queue, "worker": alert.worker}
    lines = [alert.text, ", ".join(f"{name} {value}" for name, value in where.items() if value), when]
    if alert.suppressed:
        lines.append(f"{alert.suppressed:,} more like it were not reported since the last one")
    return [line for line in lines if line]


def _kind(alerts: Sequence[Alert]) -> Kind:
    if all(each.state == "resolved" for each in alerts):
        return "success"
    known = [RULES.get(each.rule) for each in alerts if each.state == "raised"]
    return "failure" if any(rule is not None and rule.grave for rule in known) else "warning"
