"""The advice as lines to paste into code or into the config file. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from rqmem.observe.advice import AdviceReport
from rqmem.policy.recommendation import Recommendation, TooLittle
from rqmem.text import counted, printable


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
            lines += [f"# {each.job!r}: {runs_needed(each.found)}", ""]
        elif not all(part.isidentifier() for part in each.job.split(".")):  # the program that enqueues chooses it
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


def runs_needed(found: TooLittle) -> str:
    """Why there is no advice."""
    runs = counted(found.runs, "run")
    return f"too little history: {runs} in 30 days, a recommendation takes {found.needed}"


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
