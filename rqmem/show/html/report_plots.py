"""The plots of the report's page, as figures of plotly. Pure.

Names of job types are escaped here, since plotly reads its labels as a little HTML.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rqmem.observe.period import Period, TypeReport
from rqmem.observe.statistics import peaks_in
from rqmem.policy.histogram import upper_end
from rqmem.text import printable, timestamp

if TYPE_CHECKING:
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]

CEILING, BREACH = "#c0392b", "#111111"
_SHADES = {"p50_mb": "#9ecae1", "p90_mb": "#4292c6", "p99_mb": "#2171b5", "highest_mb": "#08306b"}
_WORDS = {"p50_mb": "half within", "p90_mb": "90 % within", "p99_mb": "99 % within", "highest_mb": "highest"}
_LINE = {"color": CEILING, "dash": "dash", "width": 2}
_ROW_HEIGHT, _NAME_CHARACTERS = 26, 45


def overview(types: Sequence[TypeReport]) -> Figure:
    """Peaks of all job types against their ceilings, a row each; the fullest at the top."""
    rows = sorted((each for each in types if each.peaks.highest_mb is not None), key=_share)
    heights = list(range(len(rows)))
    figure = _figure(height=110 + _ROW_HEIGHT * len(rows))
    for name, shade in _SHADES.items():
        sizes_mb = [getattr(each.peaks, name) for each in rows]
        figure.add_scatter(
            mode="markers", name=_WORDS[name], x=sizes_mb, y=heights, marker={"color": shade, "size": 10},
            hovertemplate="%{x:.1f} MB",
        )  # fmt: skip
    figure.add_scatter(
        mode="markers", name="ceiling", x=[each.ceiling_mb for each in rows], y=heights, hovertemplate="%{x:.1f} MB",
        marker={"color": CEILING, "size": 16, "symbol": "line-ns-open", "line": {"width": 3}},
    )  # fmt: skip
    figure.update_xaxes(title_text="peak of a run, MB", rangemode="tozero")
    names = [_name(each.job_type) for each in rows]
    return figure.update_yaxes(automargin=True, tickvals=heights, ticktext=names, range=[-0.7, len(rows) - 0.3])


def over_time(each: TypeReport, period: Period) -> Figure:
    """Peaks of a job type by hour or day, its ceiling, and where runs were stopped."""
    times = [_plotted_time(at + period.step_seconds / 2) for at, _ in each.steps]
    peaks = [peaks_in(tally.peaks) for _, tally in each.steps]
    figure = _figure(height=300)
    for name in ("p50_mb", "p90_mb", "highest_mb"):
        sizes_mb = [getattr(spread, name) for spread in peaks]
        figure.add_scatter(mode="lines+markers", name=_WORDS[name], x=times, y=sizes_mb, line_color=_SHADES[name])
    stopped = [index for index, (_, tally) in enumerate(each.steps) if tally.breached]
    if stopped:
        figure.add_scatter(
            mode="markers", name="breaches", x=[times[index] for index in stopped],
            y=[peaks[index].highest_mb for index in stopped],
            text=[f"{each.steps[index][1].breached:g}" for index in stopped],
            marker={"symbol": "x", "size": 11, "color": BREACH}, hovertemplate="%{text} stopped",
        )  # fmt: skip
    if each.ceiling_mb is not None:
        figure.add_hline(
            each.ceiling_mb, line=_LINE, annotation_text="ceiling", annotation_position="top right",
            annotation_font_color=CEILING,
        )  # fmt: skip
    figure.update_xaxes(type="date", range=[_plotted_time(period.since), _plotted_time(period.until)])
    return figure.update_yaxes(title_text="peak, MB", rangemode="tozero")


def distribution(each: TypeReport) -> Figure:
    """How many runs had which peak, in steps of 5 %."""
    numbers = sorted(each.tally.peaks)
    ends = [(upper_end(number - 1), upper_end(number)) for number in numbers]
    figure = _figure(height=300)
    figure.add_bar(
        x=[(low + high) / 2 for low, high in ends], width=[high - low for low, high in ends],
        y=[each.tally.peaks[number] for number in numbers], marker_color=_SHADES["p90_mb"],
        text=[f"{low:.0f} to {high:.0f} MB" for low, high in ends], textposition="none",
        hovertemplate="%{y} runs, %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text="peak of a run, MB", rangemode="tozero")
    if each.ceiling_mb is not None:
        figure.add_vline(each.ceiling_mb, line=_LINE)
        figure.update_xaxes(range=[0, 1.05 * max(each.ceiling_mb, *(high for _, high in ends), 1)])
    return figure.update_yaxes(title_text="runs")


def _figure(height: int) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure(layout={
        "template": "none", "height": height, "margin": {"l": 60, "r": 20, "t": 30, "b": 45}, "hovermode": "closest",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    })  # fmt: skip
    axis = {"gridcolor": "#e5e7eb", "zeroline": False}
    return figure.update_xaxes(axis).update_yaxes(axis)


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
