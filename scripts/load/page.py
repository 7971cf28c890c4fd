"""Draws what a load test found as one HTML page. Plotly's JavaScript is in it, so it opens without a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader

from rqmem.show.html.report_page import CONTENT_POLICY, drawn
from rqmem.units import show_mb
from scripts.load import rules
from scripts.load.report import CEILINGS_MB, Found, machine, remark
from scripts.load.trials import Measured

if TYPE_CHECKING:
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]

_OURS, _FIXED, _LOWER, _NAIVE, _CEILING = "#2171b5", "#15803d", "#6baed6", "#d97706", "#c0392b"


def to_html(found: Found) -> str:
    """The whole page. Raises `ImportError` without plotly."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    jobs = []
    for number, name in enumerate(dict.fromkeys(each.trial.job for each in found.runs)):
        runs = [each for each in found.runs if each.trial.job == name]
        idle = next((each for each in found.idle if each.job == name), None)
        jobs.append({
            "name": name,
            "ceiling_mb": CEILINGS_MB[name],
            "growths": rules.growths(runs),
            "idle": idle,
            "plot": drawn(over_time(name, runs), f"plot-{number}"),
            "rows": [(run, "; ".join(filter(None, (run.found, remark(run, idle))))) for run in runs],
        })  # fmt: skip
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["mb"] = show_mb
    return pages.get_template("page.html").render(
        found=found,
        machine=machine(),
        ended=time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.at)),
        policy=CONTENT_POLICY,
        plotly=get_plotlyjs(),
        overview=drawn(overview(found), "overview"),
        jobs=jobs,
    )


def overview(found: Found) -> Figure:
    """The peak of each job with the most records, next to the naive function's peak and the ceiling."""
    names = list(dict.fromkeys(each.trial.job for each in found.runs))
    figure = _figure(height=90 + 75 * len(names))
    for way, colour, label in (("rqmem", _OURS, "rqmem"), ("naive", _NAIVE, "naive, stock rq worker")):
        most = [each for name in names if (each := _most(found.runs, name, way)) is not None]
        peaks_mb = [each.peak_mb for each in most]
        figure.add_bar(
            orientation="h", name=label, y=[each.trial.job for each in most], x=peaks_mb, marker_color=colour,
            text=[f"{mb:,.0f} MB" for mb in peaks_mb], textposition="outside", cliponaxis=False,
            customdata=[each.trial.records for each in most],
            hovertemplate="%{x:.1f} MB with %{customdata:,} records<extra>" + label + "</extra>",
        )  # fmt: skip
    figure.add_scatter(
        mode="markers", name="ceiling", y=names, x=[CEILINGS_MB[name] for name in names],
        marker={"color": _CEILING, "symbol": "line-ns-open", "size": 34, "line": {"width": 3}},
        hovertemplate="%{x} MB<extra></extra>",
    )  # fmt: skip
    highest = max([*(each.peak_mb for each in found.runs), *(CEILINGS_MB[name] for name in names)])
    figure.update_xaxes(title_text="peak, MB", range=[0, 1.1 * highest])
    return figure.update_yaxes(automargin=True, autorange="reversed", ticksuffix="  ")


def over_time(name: str, runs: list[Measured]) -> Figure:
    """The memory of each run of a job, from the start of its worker."""
    figure = _figure(height=340)
    for run in sorted(runs, key=lambda each: -each.trial.records):
        seconds, sizes_mb = zip(*run.samples, strict=True) if run.samples else ((), ())
        figure.add_scatter(
            mode="lines", name=f"{run.trial.words}, {run.trial.records:,}", x=seconds, y=sizes_mb,
            line=_line_of(run, runs), hovertemplate="%{y:.0f} MB at %{x:.0f} s",
        )  # fmt: skip
    ceiling = CEILINGS_MB[name]
    figure.add_hline(
        ceiling, line={"color": _CEILING, "dash": "dash", "width": 2}, annotation_font_color=_CEILING,
        annotation_text=f"declared ceiling, {show_mb(ceiling)} MB", annotation_position="top right",
    )  # fmt: skip
    highest = max([ceiling, *(mb for run in runs for _, mb in run.samples)])
    figure.update_xaxes(title_text="seconds", rangemode="tozero")
    return figure.update_yaxes(title_text="MB", range=[0, 1.12 * highest])


def _line_of(run: Measured, runs: list[Measured]) -> dict[str, Any]:
    most = run.trial.records == max(each.trial.records for each in runs if each.trial.way == run.trial.way)
    if run.trial.setting in ("lower", "preload"):
        return {"color": _LOWER, "width": 1.5, "dash": "dot" if run.trial.setting == "preload" else "solid"}
    if run.trial.setting == "fixed":
        return {"color": _FIXED, "width": 1.5, "dash": "solid" if most else "dot"}
    colour = _NAIVE if run.trial.way == "naive" else _OURS
    return {"color": colour, "width": 2 if most else 1.2, "dash": "solid" if most else "dot"}


def _most(runs: Any, name: str, way: str) -> Measured | None:
    these = [each for each in runs if (each.trial.job, each.trial.way, each.trial.setting) == (name, way, "declared")]
    return max(these, key=lambda each: each.trial.records, default=None)


def _figure(height: int) -> Figure:
    from plotly.graph_objects import Figure

    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return Figure(layout={"template": "plotly_white", "height": height, "legend": legend, "hovermode": "closest"})
