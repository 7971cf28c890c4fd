"""The plots of the report's page, as plotly takes them: plain dictionaries. Pure.

Names of job types are escaped here, since plotly reads its labels as a little HTML.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from rqmem.observe.period import Period, TypeReport
from rqmem.observe.statistics import peaks_in
from rqmem.policy.histogram import upper_end
from rqmem.text import printable, timestamp

Figure = dict[str, Any]

CEILING, BREACH = "#c0392b", "#111111"
_SHADES = {"p50_mb": "#9ecae1", "p90_mb": "#4292c6", "p99_mb": "#2171b5", "highest_mb": "#08306b"}
_WORDS = {"p50_mb": "half within", "p90_mb": "90 % within", "p99_mb": "99 % within", "highest_mb": "highest"}
_ROW_HEIGHT, _NAME_CHARACTERS = 26, 45


def overview(types: Sequence[TypeReport]) -> Figure:
    """Peaks of all job types against their ceilings, a row each; the fullest at the top."""
    rows = sorted((each for each in types if each.peaks.highest_mb is not None), key=_share)
    heights = list(range(len(rows)))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": _WORDS[name], "y": heights,
            "x": [getattr(each.peaks, name) for each in rows],
            "marker": {"color": shade, "size": 10},
            "hovertemplate": "%{x:.1f} MB",
        }
        for name, shade in _SHADES.items()
    ]  # fmt: skip
    traces.append({
        "type": "scatter", "mode": "markers", "name": "ceiling", "y": heights, "x": [each.ceiling_mb for each in rows],
        "marker": {"color": CEILING, "size": 16, "symbol": "line-ns-open", "line": {"width": 3}},
        "hovertemplate": "%{x:.1f} MB",
    })  # fmt: skip
    layout = _layout(height=110 + _ROW_HEIGHT * len(rows))
    layout["xaxis"] |= {"title": {"text": "peak of a run, MB"}, "rangemode": "tozero"}
    names = [_name(each.job_type) for each in rows]
    layout["yaxis"] |= {"automargin": True, "tickvals": heights, "ticktext": names, "range": [-0.7, len(rows) - 0.3]}
    return {"data": traces, "layout": layout}


def over_time(each: TypeReport, period: Period) -> Figure:
    """Peaks of a job type by hour or day, its ceiling, and where runs were stopped."""
    times = [_plotted_time(at + period.step_seconds / 2) for at, _ in each.steps]
    peaks = [peaks_in(tally.peaks) for _, tally in each.steps]
    shown = ("p50_mb", "p90_mb", "highest_mb")
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": _WORDS[name], "x": times,
            "y": [getattr(spread, name) for spread in peaks], "line": {"color": _SHADES[name]},
        }
        for name in shown
    ]  # fmt: skip
    stopped = [index for index, (_, tally) in enumerate(each.steps) if tally.breached]
    if stopped:
        traces.append({
            "type": "scatter", "mode": "markers", "name": "breaches", "x": [times[index] for index in stopped],
            "y": [peaks[index].highest_mb for index in stopped],
            "text": [f"{each.steps[index][1].breached:g}" for index in stopped],
            "marker": {"symbol": "x", "size": 11, "color": BREACH}, "hovertemplate": "%{text} stopped",
        })  # fmt: skip
    layout = _layout(height=300)
    layout["xaxis"] |= {"type": "date", "range": [_plotted_time(period.since), _plotted_time(period.until)]}
    layout["yaxis"] |= {"title": {"text": "peak, MB"}, "rangemode": "tozero"}
    if each.ceiling_mb is not None:
        layout["shapes"] = [_line(each.ceiling_mb, across=True)]
        layout["annotations"] = [{
            "xref": "paper", "x": 1, "y": each.ceiling_mb, "text": "ceiling", "showarrow": False, "yshift": 8,
            "xanchor": "right", "font": {"color": CEILING},
        }]  # fmt: skip
    return {"data": traces, "layout": layout}


def distribution(each: TypeReport) -> Figure:
    """How many runs had which peak, in steps of 5 %."""
    numbers = sorted(each.tally.peaks)
    ends = [(upper_end(number - 1), upper_end(number)) for number in numbers]
    trace = {
        "type": "bar", "name": "runs",
        "x": [(low + high) / 2 for low, high in ends], "width": [high - low for low, high in ends],
        "y": [each.tally.peaks[number] for number in numbers],
        "text": [f"{low:.0f} to {high:.0f} MB" for low, high in ends], "textposition": "none",
        "hovertemplate": "%{y} runs, %{text}<extra></extra>",
        "marker": {"color": _SHADES["p90_mb"]},
    }  # fmt: skip
    layout = _layout(height=300)
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": "peak of a run, MB"}, "rangemode": "tozero"}
    layout["yaxis"] |= {"title": {"text": "runs"}}
    if each.ceiling_mb is not None:
        layout["shapes"] = [_line(each.ceiling_mb, across=False)]
        layout["xaxis"]["range"] = [0, 1.05 * max(each.ceiling_mb, *(high for _, high in ends), 1)]
    return {"data": [trace], "layout": layout}


def _layout(height: int) -> dict[str, Any]:
    axis = {"gridcolor": "#e5e7eb", "zeroline": False}
    return {
        "height": height, "margin": {"l": 60, "r": 20, "t": 30, "b": 45}, "hovermode": "closest",
        "paper_bgcolor": "white", "plot_bgcolor": "white", "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}, "xaxis": {**axis}, "yaxis": {**axis},
    }  # fmt: skip


def _line(limit_mb: float, *, across: bool) -> dict[str, Any]:
    along = {"xref": "paper", "x0": 0, "x1": 1, "y0": limit_mb, "y1": limit_mb}
    upright = {"yref": "paper", "y0": 0, "y1": 1, "x0": limit_mb, "x1": limit_mb}
    return {"type": "line", "line": {"color": CEILING, "dash": "dash", "width": 2}, **(along if across else upright)}


def _share(each: TypeReport) -> float:
    highest = each.peaks.highest_mb or 0.0
    return highest / each.ceiling_mb if each.ceiling_mb else 0.0


def _name(job: str) -> str:
    """The end of a long name tells more than its beginning."""
    job = printable(job)
    return html.escape(job if len(job) <= _NAME_CHARACTERS else f"…{job[-_NAME_CHARACTERS + 1 :]}")


def _plotted_time(at: float) -> str:
    """UTC, as the page says; plotly would take a zone for the reader's."""
    return timestamp(at).removesuffix("Z")
