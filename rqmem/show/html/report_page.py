"""The report as one HTML file, which opens from a disk with no network: plotly's JavaScript is in it once.

A policy in the page has browsers refuse any request. Everything from the journal is escaped. Plotly is imported when a
page is made; it is the extra ``report``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rqmem.errors import ConfigError
from rqmem.observe.accounts import tenants_words
from rqmem.observe.metric_words import metric_words
from rqmem.observe.period import PeriodReport, TypeReport
from rqmem.show.html import report_plots
from rqmem.show.report_text import ceiling_words, quiet_words, trend_words
from rqmem.text import duration, printable, timestamp
from rqmem.units import show_mb

PLOTTED_TYPES = 20  # a browser draws that many in a second or two; the table has all of them
CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)


def check_that_pages_can_be_made() -> None:
    """Raise `ConfigError` without plotly."""
    if find_spec("plotly") is None:
        raise ConfigError("--format html draws with plotly, which is not installed: pip install 'rqmem[report]'")


def to_html(report: PeriodReport) -> str:
    """All of it. Raises `ImportError` without plotly."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    with_runs = [each for each in report.types if each.tally.runs]
    plotted = with_runs[:PLOTTED_TYPES]
    pages = Environment(
        loader=PackageLoader("rqmem.show", "html"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )  # fmt: skip
    pages.filters.update(mb=show_mb, duration=duration, timestamp=timestamp, metric_words=metric_words)
    return pages.get_template("report.html").render(
        report=report,
        title=f"rqmem report{f' {report.job}' if report.job else ''}",
        policy=CONTENT_POLICY,
        plotly=Markup(get_plotlyjs()) if plotted else "",
        overview=drawn(report_plots.overview(plotted), "plot-overview") if plotted else "",
        plotted=[_job(report, each, number) for number, each in enumerate(plotted)],
        left_out=len(plotted) < len(with_runs),
        tenants=tenants_words(report.tenants),
        quiet=quiet_words(report),
    )


def _job(report: PeriodReport, each: TypeReport, number: int) -> dict[str, Any]:
    return {
        "name": each.job_type,
        "words": [word for word in (ceiling_words(each), *metric_words(each.tally)) if word],
        "changes": trend_words(each, report.period),
        "over_time": drawn(report_plots.over_time(each, report.period), f"plot-{number}-over-time"),
        "distribution": drawn(report_plots.distribution(each), f"plot-{number}-distribution"),
    }


def drawn(figure: Any, name: str) -> Any:
    """A figure of plotly's as HTML without plotly's JavaScript."""
    from markupsafe import Markup
    from plotly.io import to_html as plotly_html  # type: ignore[import-untyped]

    return Markup(
        plotly_html(
            figure,
            config={"displayModeBar": False, "responsive": True},
            include_plotlyjs=False,
            full_html=False,
            validate=False,
            div_id=name,
        )
    )
