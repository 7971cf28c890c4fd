"""``rqmem alerts``: the journal's alerts, as they were and as they come; `rqmem.cli.alert_sending` sends them on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import click
from redis import Redis
from redis.exceptions import RedisError

from rqmem import words
from rqmem.cli.alert_sending import deliver, test
from rqmem.cli.job_types import one_of
from rqmem.cli.terminal import colour, connected, redis_options, show
from rqmem.config.parsers import moment
from rqmem.observe.model import KnownAlert
from rqmem.observe.snapshot import read_alerts
from rqmem.policy.alert_rules import RULES
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.history import history_reader
from rqmem.text import date_and_clock, json_text

_SINCE = "24h"
_WAIT_SECONDS = 1.0
_WIDEST_JOB = 48
_MOODS = {"open": "bad", "raised": "warning", "resolved": "good"}


@click.group("alerts", invoke_without_command=True)
@click.option("--since", metavar="WHEN", help=f"24h, 30m, 7d, 2026-08-06T10:30.  [default: {_SINCE}]")
@click.option("--job", metavar="TYPE", help="Only this job type; its last part is enough.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new ones as they come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@redis_options
@click.pass_context
def alerts_group(
    ctx: click.Context, since: str | None, job: str | None, follow: bool, as_json: bool, url: str | None
) -> None:
    """Show alerts, oldest first.

    An alert that lasts is shown as open until it ends; then it is resolved.
    After an alert, more of the same rule and job type are left out for a while
    (RQMEM_ALERT_COOLDOWN, five minutes); the next one says how many: (+3).

    \b
    rqmem alerts --since 7d --job ProcessCampaign
    rqmem alerts --follow --json
    """
    if ctx.invoked_subcommand is not None:
        return
    after = moment(since or _SINCE, "--since", time.time())
    connection, _ = connected(url)
    history_reader.check_version(connection)
    everything = read_alerts(connection)
    if job is not None:
        known = {*history_reader.types(connection), *(each.job for each in everything)} - {""}
        job = one_of(job, known)
    ours = [each for each in everything if job in (None, each.job)]
    shown = [each for each in ours if each.at >= after or each.open]
    width = min(_WIDEST_JOB, max((len(each.job) for each in shown), default=0))
    for each in shown:
        show(_shown(each, as_json, width))
    if not shown and not as_json:
        show(_nothing(job, len(ours), after), err=follow)
    if follow:
        last = everything[-1].id if everything else "0-0"
        _follow(connection, last, lambda each: _tell(each, job, as_json, width))


alerts_group.add_command(test)
alerts_group.add_command(deliver)


def _follow(connection: Redis, last: str, tell: Callable[[Alert], None]) -> None:
    """Tell each new alert, until Ctrl-C. A Redis that goes is waited for, with a line then and one when it is back."""
    away = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                found = history_reader.next_alerts(connection, last, _WAIT_SECONDS)
            except RedisError as error:
                if not away:
                    show(f"rqmem: {words.REDIS_GONE['away']} ({error}): waiting for it", err=True)
                away = True
                time.sleep(_WAIT_SECONDS)
                continue
            if away:
                click.echo(f"rqmem: {words.REDIS_BACK['away']}", err=True)
            away = False
            for each in found:
                last = each.id
                tell(each)


def _tell(alert: Alert, job: str | None, as_json: bool, width: int) -> None:
    if job in (None, alert.job):
        rule = RULES.get(alert.rule)
        lasts = alert.state == "raised" and rule is not None and rule.can_end
        show(_shown(KnownAlert(**vars(alert), open=lasts), as_json, width))


def _nothing(job: str | None, before: int, after: float) -> str:
    about = f" about {job}" if job else ""
    since = date_and_clock(after)
    more = f"; {before:,} before (--since 30d shows them)" if before else ""
    return f"no alerts{about} since {since}{more}"


def _shown(alert: KnownAlert, as_json: bool, width: int) -> str:
    if as_json:
        return json_text(alert.to_json())
    state = "open" if alert.open else alert.state
    when = date_and_clock(alert.at)
    more = f" (+{alert.suppressed})" if alert.suppressed else ""
    mark = colour(f"{state:<8}", _MOODS[state])
    return f"{when}  {mark}  {alert.rule:<19}  {alert.job or '-':<{width}}  {alert.text}{more}"
