"""The report as one HTML file, which opens from a disk with no network: plotly's JavaScript is in it once.

A policy in the page has browsers refuse any request. Everything from the journal is escaped. Plotly is imported when a
page is made; it is the extra ``report``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as escaped
from importlib.util import find_spec
from typing import Any

from rqmem.errors import ConfigError
from rqmem.observe.accounts import tenants_words
from rqmem.observe.metric_words import metric_words
from rqmem.observe.period import Report, TypeReport
from rqmem.show.html import report_plots
from rqmem.show.report_text import ceiling_words, quiet_words, trend_words
from rqmem.store.history.history_records import Tally
from rqmem.text import duration, printable, timestamp
from rqmem.units import show_mb

PLOTTED_TYPES = 20  # a browser draws that many in a second or two; the table has all of them
CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1f2937; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2 } h1 { margin-bottom: 0 } h3 { margin: 2.5rem 0 .3rem; overflow-wrap: anywhere }
p { margin: .3rem 0 } .faint { color: #6b7280 } .note { background: #fef9c3; padding: .4rem .8rem }
.bad { color: #c0392b; font-weight: 600 } .wide { overflow-x: auto }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0 }
.figures div { border: 1px solid #e5e7eb; border-radius: .4rem; padding: .5rem 1rem; min-width: 6rem }
.figures b { display: block; font-size: 1.4rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .5rem; text-align: right; vertical-align: top } th { vertical-align: bottom }
td { white-space: nowrap }
th:first-child, td:first-child { text-align: left; min-width: 14rem; white-space: normal; overflow-wrap: anywhere }
tr { border-bottom: 1px solid #e5e7eb }
.pair { display: grid; grid-template-columns: 3fr 2fr; gap: 1rem }
@media (max-width: 60rem) { .pair { display: block } }
"""
_COLUMNS = (
    *("job type", "runs", "failed", "breaches", "resumes", "splits", "leaks", "alerts"),
    *("p50 MB", "p90 MB", "p99 MB", "highest MB", "ceiling MB", "MB / 1,000 items", "MB / collection"),
)


def escape(text: str) -> str:
    """The text for a page."""
    return escaped(printable(text))


def check_that_pages_can_be_made() -> None:
    """Raise `ConfigError` without plotly."""
    if find_spec("plotly") is None:
        raise ConfigError("--format html draws with plotly, which is not installed: pip install 'rqmem[report]'")


def to_html(report: Report) -> str:
    """All of it. Raises `ImportError` without plotly."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    period = report.period
    plotted = [each for each in report.types if each.tally.runs][:PLOTTED_TYPES]
    title = f"rqmem report{f' {report.job}' if report.job else ''}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<script>{get_plotlyjs()}</script>" if plotted else "",
        f"</head><body><h1>{escape(title)}</h1>",
        f'<p class="faint">{duration(period.seconds)} from {timestamp(period.since)} to {timestamp(period.until)} (all '
        f"times in UTC), {escape(report.redis)}, rqmem {escape(report.rqmem_version)}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
    ]
    if report.types:
        parts += [*_figures(report.tally), *_table(report.types)]
    if plotted:
        parts += ["<h2>Peaks against ceilings</h2>", drawn(report_plots.overview(plotted), "plot-overview")]
    for number, each in enumerate(plotted):
        parts += _job(report, each, number)
    if len(plotted) < sum(bool(each.tally.runs) for each in report.types):
        parts.append(f'<p class="faint">Drawn are the first {len(plotted)} job types; --job TYPE draws another.</p>')
    if told := tenants_words(report.tenants):
        parts.append(f"<p>{escape(told)}</p>")
    if report.quiet:
        parts.append(f'<p class="faint">{escape(quiet_words(report))}</p>')
    return "\n".join([*parts, "</body></html>\n"])


def _figures(tally: Tally) -> Iterable[str]:
    """What matters, in large letters."""
    yield '<div class="figures">'
    for name, count, bad in (
        ("runs", tally.runs, False),
        ("failed", tally.failed, True),
        ("breaches", tally.breached, True),
        ("resumes", tally.resumed, False),
        *([("escalations", tally.escalations, False)] if tally.escalations else []),
        ("splits", tally.splits, False),
        ("leaks", tally.leaks, True),
        ("alerts", tally.alerts, True),
    ):
        yield f"<div><b{_bad(bad and count)}>{count:,.0f}</b>{name}</div>"
    yield "</div>"
    yield f"<p>{escape(', '.join(metric_words(tally)))}</p>"


def _table(types: Sequence[TypeReport]) -> Iterable[str]:
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th>{escape(name)}</th>" for name in _COLUMNS)
    yield "</tr></thead><tbody>"
    for each in types:
        tally, peaks = each.tally, each.statistics.peaks
        yield f"<tr><td>{escape(each.job)}</td><td>{tally.runs:,.0f}</td>"
        yield f"<td{_bad(tally.failed)}>{tally.failed:,.0f}</td><td{_bad(tally.breached)}>{_breaches(tally)}</td>"
        yield f"<td>{tally.resumed:,.0f}</td><td>{tally.splits:,.0f}</td>"
        yield f"<td{_bad(tally.leaks)}>{tally.leaks:,.0f}</td><td>{tally.alerts:,.0f}</td>"
        sizes = (peaks.p50_mb, peaks.p90_mb, peaks.p99_mb, peaks.highest_mb, each.limit_mb)
        rates = (tally.mb_per_1000_items, tally.freed_mb_per_collection)
        yield "".join(f"<td>{'' if size is None else show_mb(size)}</td>" for size in (*sizes, *rates))
        yield "</tr>"
    yield "</tbody></table></div>"


def _breaches(tally: Tally) -> str:
    layers = ", ".join(f"{escape(layer)} {count:g}" for layer, count in tally.breaches.items())
    return f"{tally.breached:,.0f}{f' ({layers})' if layers else ''}"


def _job(report: Report, each: TypeReport, number: int) -> Iterable[str]:
    yield f"<h3>{escape(each.job)}</h3>"
    if words := [word for word in (ceiling_words(each), *metric_words(each.tally)) if word]:
        yield f"<p>{escape(', '.join(words))}</p>"
    if changes := trend_words(each, report.period):
        before = f"in the {duration(report.period.before_seconds)} before: {', '.join(changes)}"
        yield f'<p class="faint">{escape(before)}</p>'
    yield '<div class="pair">'
    yield drawn(report_plots.over_time(each, report.period), f"plot-{number}-over-time")
    yield drawn(report_plots.distribution(each), f"plot-{number}-distribution")
    yield "</div>"


def drawn(figure: Any, name: str) -> str:
    """A figure of plotly's, or the dictionary of one, as HTML without plotly's JavaScript."""
    from plotly.io import to_html as plotly_html  # type: ignore[import-untyped]

    html: str = plotly_html(
        figure,
        config={"displayModeBar": False, "responsive": True},
        include_plotlyjs=False,
        full_html=False,
        validate=False,
        div_id=name,
    )
    return html


def _bad(count: float) -> str:
    return ' class="bad"' if count else ""
