"""The advice as text: for people, and to paste. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from rqmem.observe.advice import Advice, AdviceReport
from rqmem.policy.recommendation import Recommendation, TooLittle
from rqmem.text import counted, printable, span
from rqmem.units import show_mb

_DAY_SECONDS = 86400.0


def to_text(report: AdviceReport) -> str:
    """All of it."""
    lines = [f"note: {note}" for note in report.notes]
    for each in report.jobs:
        found = each.found
        lines += _too_little(each, found) if isinstance(found, TooLittle) else _recommended(each, found, report.at)
        lines.append("")
    return "\n".join(map(printable, lines)).rstrip("\n") + "\n"


def to_class(report: AdviceReport) -> str:
    """Class attributes by job type, and the environment of the workers, to paste."""
    return _to_paste(report, _attributes, "# environment of the workers", "RQMEM_MEMORY={}")


def to_config(report: AdviceReport) -> str:
    """The same for the config file (`rqmem.config.load`)."""
    return _to_paste(report, _section, "[rqmem]", "memory = {}")


PASTED: dict[str, Callable[[AdviceReport], str]] = {"class": to_class, "config": to_config}


def _to_paste(
    report: AdviceReport, lines_of: Callable[[str, Recommendation], Iterable[str]], head: str, worker_line: str
) -> str:
    lines = [f"# {note}" for note in report.notes]
    pasted = False
    highest_mb = 0.0  # so that no job of the report has its ceiling cut, also none without a recommendation
    for each in report.jobs:
        needed_mb: float | None = each.past.limit_mb
        if isinstance(each.found, TooLittle):
            lines += [f"# {each.job!r}: {_runs_needed(each.found)}", ""]
        elif not all(part.isidentifier() for part in each.job.split(".")):  # whoever enqueues names it
            lines += [f"# {each.job!r} is no path to paste", ""]
        else:
            lines.append(f"# {each.job}: {each.found.runs:,} runs, confidence {each.found.confidence}")
            lines += [*lines_of(each.job, each.found), ""]
            pasted, needed_mb = True, each.found.ceiling_mb
        highest_mb = max(highest_mb, needed_mb or 0.0)
    if pasted:
        others = f"; only {report.job} was asked for" if report.job is not None else ""
        lines += [f"# at least, or ceilings are cut{others}", head, worker_line.format(math.ceil(highest_mb))]
    return "\n".join(map(printable, lines)).rstrip("\n") + "\n"


def _too_little(advice: Advice, found: TooLittle) -> Iterable[str]:
    yield f"{advice.job}: {_runs_needed(found)}"


def _runs_needed(found: TooLittle) -> str:
    runs = counted(found.runs, "run")
    return f"too little history: {runs} in 30 days, a recommendation takes {found.needed}"


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


def _attributes(job: str, found: Recommendation) -> Iterable[str]:
    """A function has no attributes: what PEP 8 writes in small letters is taken for one."""
    name = job.rpartition(".")[2]
    if not name[:1].isupper():
        yield f"@memory_aware(memory_limit_mb={found.ceiling_mb})"
        yield f"def {name}(...):"
        return
    yield f"class {name}(MemoryAwareJob):"
    yield from (f"    {line}" for line in _values(found))


def _section(job: str, found: Recommendation) -> Iterable[str]:
    yield f"[job {job}]"
    yield from _values(found)


def _values(found: Recommendation) -> Iterable[str]:
    """By the names that class and config file have for them."""
    yield f"memory_limit_mb = {found.ceiling_mb}"
    if found.chunk_size is not None:
        yield f"chunk_size = {found.chunk_size}"
    if found.split_above_items is not None:
        yield f"split_above_items = {found.split_above_items}"
