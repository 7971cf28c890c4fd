"""The advice as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rqmem.observe.advice import Advice, AdviceReport
from rqmem.observe.advice_to_paste import runs_needed
from rqmem.policy.recommendation import Recommendation, TooLittle
from rqmem.text import printable, span
from rqmem.units import show_mb

_DAY_SECONDS = 86400.0


def to_text(report: AdviceReport) -> str:
    lines = [f"note: {note}" for note in report.notes]
    for each in report.jobs:
        found = each.found
        if isinstance(found, TooLittle):
            lines.append(f"{each.job}: {runs_needed(found)}")
        else:
            lines += _recommended(each, found, report.at)
        lines.append("")
    return "\n".join(map(printable, lines)).rstrip("\n") + "\n"


def _recommended(advice: Advice, found: Recommendation, now: float) -> Iterable[str]:
    history = f"{found.runs:,} runs in {span(found.history_days * _DAY_SECONDS)}"
    yield (f"{advice.job}: confidence {found.confidence} ({history}, the last {span(now - advice.last_run_at)} ago)")
    yield f"  ceiling      {found.ceiling_mb:>7,} MB     {_change(advice, found)}"
    if found.chunk_size is not None:
        yield f"  chunk size   {found.chunk_size:>7,} items  to begin with"
    if found.split_above_items is not None:
        yield f"  split above  {found.split_above_items:>7,} items  held at once"
    yield f"  {_effect(found)}"
    for sentence in found.evidence:
        yield f"  - {sentence}"


def _change(advice: Advice, found: Recommendation) -> str:
    between = f"likely between {found.lowest_mb:,} and {found.highest_mb:,}"
    given_back, limit_mb = found.given_back_mb, advice.past.limit_mb
    if given_back is None or limit_mb is None:
        return between
    change = f"gives back {show_mb(given_back)} MB" if given_back > 0 else f"takes {show_mb(-given_back)} MB more"
    return f"now {show_mb(limit_mb)}, {change if given_back else 'as it is'}; {between}"


def _effect(found: Recommendation) -> str:
    """What it would have changed, as far as anybody can know."""
    avoided = f"would have avoided {found.breaches_avoided:,} of {found.breaches:,} breaches" if found.breaches else ""
    added = f"would have stopped {found.breaches_added:,} runs that went well" if found.breaches_added else ""
    return " and ".join(each for each in (avoided, added) if each) or "no run would have gone otherwise"
