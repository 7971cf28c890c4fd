"""``/api/v1``: what the pages show, as JSON in the one vocabulary, and the actions. docs/dashboard-api.md describes it.

Bodies are those of the commands where there is one for it. Tables are also CSV: the same address with ``.csv``. Errors
are ``{"error", "hint"}``. Who may do what is asked in `rqmem.dashboard.security`, before any view.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from flask import Blueprint, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue

from rqmem.acting import Actor, CountHasGrown, Done
from rqmem.config.parsers import moment
from rqmem.config.settings import Config
from rqmem.dashboard import csv_table
from rqmem.dashboard.action_views import actor, expected_of, filter_of
from rqmem.dashboard.state import state
from rqmem.dashboard.windows import WINDOWS, Window, read_types
from rqmem.errors import ConfigError, UnknownName
from rqmem.observe import as_json
from rqmem.observe.find import is_known, search
from rqmem.observe.job_lists import MOST_ROWS, read_page
from rqmem.observe.job_read import read_case, read_ended_splits, read_splits
from rqmem.observe.model import State
from rqmem.observe.period import Period, TypeReport
from rqmem.observe.period_read import read_advice, read_trends
from rqmem.observe.problems import problems
from rqmem.observe.snapshot import read_alerts, read_snapshot, read_status
from rqmem.observe.vocabulary import encoded, job_type_head, of_tally, versioned
from rqmem.store import actions
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Tally
from rqmem.text import timestamp_ms

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

_CALL = "(hidden)"
_WITH_STEPS = 20  # job types; the days of a hundred take a tenth of a second
_LISTS = {"types": "job_types", "leaks": "job_types", "splitting": "ended"}
"""Name of a table -> that of the list in its answer, where it is another."""


def _table(name: str) -> Callable[[Callable[[], dict[str, Any]]], Callable[[], dict[str, Any]]]:
    """A view that answers JSON under ``/name`` and its list as CSV under ``/name.csv``."""

    def register(view: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        blueprint.add_url_rule(f"/{name}", name, lambda: jsonify(view()))
        blueprint.add_url_rule(f"/{name}.csv", f"{name}_csv", lambda: _as_csv(name, view()[_LISTS.get(name, name)]))
        return view

    return register


@blueprint.get("/overview")
def overview() -> ResponseReturnValue:
    """As ``rqmem status --json``."""
    snapshot = read_status(state().connection, state().where, time.time())
    return jsonify(as_json.of_snapshot(snapshot, problems(snapshot)))


def _of_snapshot(name: str) -> dict[str, Any]:
    """As the list of that name in ``rqmem status --json``."""
    snapshot = read_snapshot(state().connection, time.time())
    return {**versioned(at=snapshot.at), name: [each.to_json() for each in getattr(snapshot, name)]}


for _name in ("workers", "hosts", "pools", "queues"):
    _table(_name)(partial(_of_snapshot, _name))


@_table("types")
def types() -> dict[str, Any]:
    """Job types with a run in ``window`` that match ``type`` and ``outcome``, the busiest first."""
    window, now, asked = _window("24h"), time.time(), request.args.get
    report, steps = read_types(window, now, asked("type", ""), asked("outcome", "")), _steps()
    rows = sorted(report.types, key=lambda row: (-row.tally.runs, row.job_type))
    return {**_within(window, report.period), "job_types": [_type(row, steps=i < steps) for i, row in enumerate(rows)]}


@blueprint.get("/types/<path:job_type>")
def one_type(job_type: str) -> ResponseReturnValue:
    """A job type: its month by the day, its last runs, where it grew, what is recommended."""
    connection, now = state().connection, time.time()
    history_reader.check_version(connection)
    if job_type not in history_reader.types(connection):
        raise UnknownName(f"the journal knows no job type {job_type!r}")
    window = WINDOWS["30d"]
    report = read_types(window, now)
    row = next((each for each in report.types if each.job_type == job_type), None)
    advice = next(iter(read_advice(connection, state().where, Config.warning_threshold, now, job_type).jobs), None)
    leak = history_reader.last_leaks(connection, [job_type]).get(job_type)
    return jsonify(
        {
            **_within(window, report.period),
            "job_type": _type(row, steps=True) if row is not None else None,
            "advice": as_json.of_advised(advice) if advice is not None else None,
            "runs": encoded(history_reader.runs(connection, job_type)[: _limit(100)]),
            "grew": as_json.of_grown(history_reader.grown(connection, job_type, now)),
            "last_leak": as_json.of_told(leak) if leak is not None else None,
        }
    )


@_table("jobs")
def jobs() -> dict[str, Any]:
    """A page of the jobs in one ``state``."""
    name = cast("State", request.args.get("state", "failed"))
    cursor = request.args.get("cursor", "")
    page = read_page(state().connection, name, filter_of(request.args), cursor=cursor, limit=_limit(20))
    shown = page.to_json()
    if state().options.hide_arguments:
        shown["jobs"] = [{**each, "call": _CALL} for each in shown["jobs"]]
    return shown


@blueprint.get("/jobs/<path:job_id>")
def job(job_id: str) -> ResponseReturnValue:
    """As ``rqmem inspect --json``, by the whole id."""
    connection = state().connection
    if not is_known(connection, job_id):
        raise UnknownName(f"no job {job_id!r}: neither RQ nor the journal knows it; /api/v1/search finds beginnings")
    case = read_case(connection, job_id, time.time())
    shown = as_json.of_story(case)
    return jsonify({**shown, "call": _CALL} if state().options.hide_arguments else shown)


@_table("splitting")
def splitting() -> dict[str, Any]:
    """Jobs that wait for their children, and the last ones whose children have all ended."""
    connection, now = state().connection, time.time()
    running = [each.to_json() for each in read_splits(connection, now)]
    ended = [each.to_json() for each in read_ended_splits(connection)[: _limit(MOST_ROWS)]]
    return {**versioned(at=now), "running": running, "ended": ended}


@_table("leaks")
def leaks() -> dict[str, Any]:
    """Job types in which a leak was found in ``window``, the largest first."""
    window, now = _window("7d"), time.time()
    report = read_types(window, now)
    rows = sorted((row for row in report.types if row.tally.leaks), key=lambda row: -(row.tally.leak_mb_per_run or 0))
    last = history_reader.last_leaks(state().connection, [row.job_type for row in rows])
    told = {name: as_json.of_told(leak) for name, leak in last.items()}
    found = [{**_type(row, steps=False), "last_leak": told.get(row.job_type)} for row in rows]
    return {**_within(window, report.period), "job_types": found}


@_table("alerts")
def alerts() -> dict[str, Any]:
    """As ``rqmem alerts --json``, the newest first; with ``cursor`` those before that id."""
    history_reader.check_version(state().connection)
    since, before = request.args.get("since", ""), request.args.get("cursor", "")
    after = moment(since, "since", time.time()) if since else 0.0
    known = [each for each in reversed(read_alerts(state().connection)) if each.at >= after or each.open]
    older = [each for each in known if not before or _order(each.id) < _order(before)]
    found = older[: _limit(100)]
    cursor = found[-1].id if len(older) > len(found) else ""
    return {**versioned(at=time.time()), "alerts": [each.to_json() for each in found], "cursor": cursor}


@blueprint.get("/trends")
def trends() -> ResponseReturnValue:
    """As ``rqmem report --json``, of ``window`` and the time before it."""
    now = time.time()
    since = now - _window("7d").seconds
    report = read_trends(state().connection, state().closed, state().where, since, now)
    return jsonify(as_json.of_report(report, steps=_steps()))


@_table("actions")
def acted() -> dict[str, Any]:
    """What people did, the newest first."""
    found = actions.read(state().connection, _limit(100), request.args.get("job_id", ""))
    return {**versioned(at=time.time()), "actions": encoded(found)}


@blueprint.get("/search")
def find() -> ResponseReturnValue:
    """Ids that begin with ``q``, and job types that have it in their path."""
    history_reader.check_version(state().connection)
    return jsonify(search(state().connection, request.args.get("q", ""), _limit(20)).to_json())


# Actions


def _as_the_command(act: Callable[[Actor, str], Done], name: str) -> ResponseReturnValue:
    return _done(lambda: act(actor(), name))


for _act, _what in ((Actor.retry, "jobs"), (Actor.cancel, "jobs"), (Actor.pause, "queues"), (Actor.resume, "queues")):
    _rule = f"/{_what}/<path:name>/{_act.__name__}"
    blueprint.add_url_rule(_rule, _act.__name__, partial(_as_the_command, _act), methods=["POST"])


@blueprint.post("/jobs/retry")
def retry_matching() -> ResponseReturnValue:
    """Retry the failed jobs that match ``queue``, ``type`` and ``error``; 409 where more than ``expected`` do."""
    given = request.get_json(silent=True) or request.form
    if not isinstance(given, dict):
        abort(400, "Send an object with queue, type, error and expected.")
    texts = {name: str(value) for name, value in given.items() if value is not None}
    return _done(lambda: actor().retry_matching(filter_of(texts), expected_of(texts.get("expected", ""))))


def _done(action: Callable[[], Done]) -> ResponseReturnValue:
    try:
        done = action()
    except CountHasGrown as error:
        abort(409, str(error))
    return jsonify(versioned(text=done.text, count=done.count))


def _limit(otherwise: int) -> int:
    """As asked for; of a file as many as there may be, since nobody reads it page by page."""
    otherwise = MOST_ROWS if request.path.endswith(".csv") else otherwise
    text = request.args.get("limit", str(otherwise))
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ROWS:
        raise ConfigError(f"limit is {text!r}: give a number from 1 to {MOST_ROWS}")
    return int(text)


def _steps() -> int:
    """Of how many job types each hour or day is asked for."""
    return _limit(_WITH_STEPS) if request.args.get("steps") == "1" else 0


def _window(otherwise: str) -> Window:
    name = request.args.get("window", otherwise)
    if name not in WINDOWS:
        raise ConfigError(f"window is {name!r}: give one of {', '.join(WINDOWS)}")
    return WINDOWS[name]


def _within(window: Window, period: Period) -> dict[str, Any]:
    return versioned(at=period.until, window=window.name, since=period.since)


def _type(each: TypeReport, *, steps: bool) -> dict[str, Any]:
    """As in ``job_types`` of ``rqmem report``; with ``steps`` also each hour or day, with less of each."""
    head = {**job_type_head(each.job_type, each.ceilings), **of_tally(each.tally, each.peaks)}
    return {**head, "steps": [_step(at, tally) for at, tally in each.steps]} if steps else head


def _step(at: float, tally: Tally) -> dict[str, Any]:
    return {
        "at": timestamp_ms(at),
        "runs": round(tally.runs),
        "failed": round(tally.failed),
        "items": round(tally.items),
        "breaches": {"total": round(tally.breached)},
        "peak_mb": encoded({"p90": tally.p90_mb}, "peak_mb"),
        "code_versions": sorted(tally.code_versions),
    }


def _order(entry_id: str) -> tuple[int, int]:
    """Of the id of an entry of a stream; of any other text, the first of all."""
    at, _, number = entry_id.partition("-")
    return (int(at), int(number)) if at.isdecimal() and number.isdecimal() else (0, 0)


def _as_csv(name: str, rows: list[dict[str, Any]]) -> Response:
    """The rows as a file; values within values get names with dots, lists are joined."""
    flat = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(column for row in flat for column in row if column != "version"))
    text = csv_table.to_text(columns, [[row.get(column) for column in columns] for row in flat])
    name_of_file = {"Content-Disposition": f'attachment; filename="rqmem-{name}.csv"'}
    return Response(text, mimetype="text/csv", headers=name_of_file)


def _flat(value: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, each in value.items():
        if isinstance(each, dict):
            found += _flat(each, f"{above}{name}.")
        elif not isinstance(each, list):
            found.append((f"{above}{name}", each))
        elif all(isinstance(part, str) for part in each):
            found.append((f"{above}{name}", " ".join(each)))
    return found
