"""What a load test found as one HTML file that opens with no network: plotly's JavaScript is in it once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from rqmem.units import show_mb
from scripts.load import rules
from scripts.load.report import CEILINGS_MB, Found, machine, remark
from scripts.load.trials import Idle, Measured

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1f2937; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2 } h1 { margin-bottom: 0 } h2 { margin: 2.5rem 0 .3rem }
p { margin: .3rem 0 } .faint { color: #6b7280 } .bad { color: #c0392b; font-weight: 600 } .good { color: #15803d }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; text-align: right; vertical-align: top; white-space: nowrap }
th { vertical-align: bottom } tr { border-bottom: 1px solid #e5e7eb }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left }
td:last-child { white-space: normal; min-width: 16rem }
"""
_OURS, _FIXED, _LOWER, _NAIVE, _CEILING = "#2171b5", "#15803d", "#6baed6", "#d97706", "#c0392b"
_COLUMNS = ("worker", "records", "outcome", "peak MB", "seconds", "breaches", "children", "what was found")


def to_html(found: Found) -> str:
    """All of it. Raises `ImportError` without plotly."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    here = machine()
    verdict = '<p class="good"><b>All rules hold.</b></p>' if not found.faults else ""
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>rqmem load test</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script>",
        "</head><body><h1>rqmem load test</h1>",
        f'<p class="faint">{time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.at))} UTC, {found.few:,} and '
        f"{found.many:,} records, {found.seconds / 60:.0f} minutes on {here['processors']} processors, Python "
        f"{escape(here['python'])}, rqmem {escape(here['rqmem'])}</p>",
        verdict,
        *(f'<p class="bad">{escape(fault)}</p>' for fault in found.faults),
        "<h2>Peaks of all jobs</h2>",
        "<p class='faint'>With the worker's ceiling as each job declares it; the naive function does the same work "
        "under a stock rq worker, which has no ceiling.</p>",
        _drawn(overview(found), "overview"),
    ]
    idle = {each.job: each for each in found.idle}
    for number, name in enumerate(dict.fromkeys(each.trial.job for each in found.runs)):
        runs = [each for each in found.runs if each.trial.job == name]
        parts += _job(name, runs, idle.get(name), number)
    return "\n".join([*parts, "</body></html>\n"])


def _job(name: str, runs: list[Measured], idle: Idle | None, number: int) -> Iterator[str]:
    yield f"<h2>{escape(name)}</h2>"
    words = [f"declares {show_mb(CEILINGS_MB[name])} MB"]
    words += [
        f"{each.way}: from {each.records[0]:,} to {each.records[1]:,} records the peak changes by {each.share:+.1%}"
        for each in rules.growths(runs)
    ]
    if idle is not None:
        words.append(
            f"an idle horse with its imports takes {show_mb(idle.idle_mb)} MB, "
            f"{show_mb(idle.preloaded_mb)} MB with --preload"
        )
    yield f"<p>{escape('; '.join(words))}</p>"
    yield _drawn(over_time(name, runs), f"plot-{number}")
    yield from _table(runs, idle)


def _table(runs: Iterable[Measured], idle: Idle | None) -> Iterator[str]:
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th>{name}</th>" for name in _COLUMNS)
    yield "</tr></thead><tbody>"
    for run in runs:
        bad = "" if run.finished and (run.right or run.trial.way == "naive") else ' class="bad"'
        words = "; ".join(word for word in (run.found, remark(run, idle)) if word)
        cells = (f"{run.peak_mb:,.1f}", f"{run.seconds:,.1f}", f"{run.breaches:,}", f"{run.children:,}")
        yield f"<tr><td>{escape(run.trial.words)}</td><td>{run.trial.records:,}</td><td{bad}>{run.outcome}</td>"
        yield "".join(f"<td>{cell}</td>" for cell in cells)
        yield f"<td>{escape(words)}</td></tr>"
    yield "</tbody></table></div>"


def overview(found: Found) -> dict[str, Any]:
    """Peaks of all jobs with the most records, beside the naive ones and the ceilings."""
    names = list(dict.fromkeys(each.trial.job for each in found.runs))
    traces: list[dict[str, Any]] = []
    for way, colour, label in (("rqmem", _OURS, "rqmem"), ("naive", _NAIVE, "naive, stock rq worker")):
        most = [_most(found.runs, name, way) for name in names]
        if not any(most):
            continue
        traces.append({
            "type": "bar", "orientation": "h", "name": label, "y": names,
            "x": [each.peak_mb if each else None for each in most], "marker": {"color": colour},
            "text": [f"{each.peak_mb:,.0f} MB" if each else "" for each in most], "textposition": "outside",
            "cliponaxis": False, "customdata": [each.trial.records if each else 0 for each in most],
            "hovertemplate": "%{x:.1f} MB with %{customdata:,} records<extra>" + label + "</extra>",
        })  # fmt: skip
    traces.append({
        "type": "scatter", "mode": "markers", "name": "ceiling", "y": names, "x": [CEILINGS_MB[name] for name in names],
        "marker": {"color": _CEILING, "symbol": "line-ns-open", "size": 34, "line": {"width": 3}},
        "hovertemplate": "%{x} MB<extra></extra>",
    })  # fmt: skip
    layout = _layout(90 + 75 * len(names))
    highest = max([*(each.peak_mb for each in found.runs), *(CEILINGS_MB[name] for name in names)])
    layout["xaxis"] |= {"title": {"text": "peak, MB"}, "range": [0, 1.1 * highest]}
    layout["yaxis"] |= {"automargin": True, "autorange": "reversed", "ticksuffix": "  "}
    return {"data": traces, "layout": layout}


def over_time(name: str, runs: Iterable[Measured]) -> dict[str, Any]:
    """Memory of each run of a job, from the start of its worker."""
    traces: list[dict[str, Any]] = []
    listed = list(runs)
    for run in sorted(listed, key=lambda each: -each.trial.records):
        traces.append({
            "type": "scatter", "mode": "lines", "name": f"{run.trial.words}, {run.trial.records:,}",
            "x": [round(seconds, 2) for seconds, _ in run.samples], "y": [round(mb, 1) for _, mb in run.samples],
            "line": _line_of(run, listed), "hovertemplate": "%{y:.0f} MB at %{x:.0f} s",
        })  # fmt: skip
    layout = _layout(340)
    layout["xaxis"] |= {"title": {"text": "seconds"}, "rangemode": "tozero"}
    ceiling = CEILINGS_MB[name]
    highest = max([ceiling, *(mb for run in listed for _, mb in run.samples)])
    layout["yaxis"] |= {"title": {"text": "MB"}, "range": [0, 1.12 * highest]}
    layout["shapes"] = [{
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": ceiling, "y1": ceiling,
        "line": {"color": _CEILING, "dash": "dash", "width": 2},
    }]  # fmt: skip
    layout["annotations"] = [{
        "xref": "paper", "x": 1, "y": ceiling, "text": f"declared ceiling, {show_mb(ceiling)} MB", "showarrow": False,
        "yshift": 9, "xanchor": "right", "font": {"color": _CEILING},
    }]  # fmt: skip
    return {"data": traces, "layout": layout}


def _line_of(run: Measured, runs: list[Measured]) -> dict[str, Any]:
    most = run.trial.records == max(each.trial.records for each in runs if each.trial.way == run.trial.way)
    if run.trial.setting in ("lower", "preload"):
        return {"color": _LOWER, "width": 1.5, "dash": "dot" if run.trial.setting == "preload" else "solid"}
    if run.trial.setting == "fixed":
        return {"color": _FIXED, "width": 1.5, "dash": "solid" if most else "dot"}
    colour = _NAIVE if run.trial.way == "naive" else _OURS
    return {"color": colour, "width": 2 if most else 1.2, "dash": "solid" if most else "dot"}


def _most(runs: Iterable[Measured], name: str, way: str) -> Measured | None:
    these = [
        each for each in runs if each.trial.job == name and each.trial.way == way and each.trial.setting == "declared"
    ]
    return max(these, key=lambda each: each.trial.records, default=None)


def _layout(height: int) -> dict[str, Any]:
    axis = {"gridcolor": "#e5e7eb", "zeroline": False}
    return {
        "height": height, "margin": {"l": 60, "r": 20, "t": 40, "b": 45}, "hovermode": "closest",
        "paper_bgcolor": "white", "plot_bgcolor": "white", "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}, "xaxis": {**axis}, "yaxis": {**axis},
    }  # fmt: skip


def _drawn(figure: dict[str, Any], name: str) -> str:
    from plotly.io import to_html as plotly_html  # type: ignore[import-untyped]

    drawn: str = plotly_html(
        figure,
        config={"displayModeBar": False, "responsive": True},
        include_plotlyjs=False,
        full_html=False,
        validate=False,
        div_id=name,
    )
    return drawn
