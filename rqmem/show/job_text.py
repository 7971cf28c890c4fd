"""The story of one job as text. Pure."""

from __future__ import annotations

from collections.abc import Callable

from rqmem import words
from rqmem.breach_words import evidence
from rqmem.events import JobStarted
from rqmem.job.progress import Progress
from rqmem.observe.curve import executions
from rqmem.observe.job import Case
from rqmem.observe.next_step import outlook
from rqmem.observe.timeline import TimelineEntry, lines
from rqmem.show.plot import plot
from rqmem.store.history.history_records import Lines
from rqmem.text import Mood, bar, below, counted, date_and_clock, printable, span, wrapped
from rqmem.units import show_mb

Colour = Callable[[str, Mood], str]

_LABEL_COLUMNS = 13
_BAR_COLUMNS = 10


def story(case: Case, columns: int, colour: Colour, *, plain: bool = False) -> list[str]:
    """Header, plot, lines of code where it grew, timeline, and the breaches with their evidence.

    Args:
        columns: lines are broken at.
        colour: gives a text the colour of its mood.
        plain: ASCII only.
    """
    drawn = [each.points for each in executions(case)]
    parts = [
        header(case, columns, colour),
        _under("memory over time", plot(drawn, case.ceiling_mb, columns, plain=plain)),
        *(_under(title, _grew(lines, columns)) for title, lines in _growth(case)),
        _under("what happened", _timeline(case, columns, colour, plain=plain)),
        _under(_breaches_title(case), _breaches(case, columns, colour)),
    ]
    told = [part for part in parts if part]
    return [line for number, part in enumerate(told) for line in ([""] if number else []) + part]


def header(case: Case, columns: int, colour: Colour) -> list[str]:
    """Which job it is, its present state, and what happens to it next."""
    lines = [printable(f"{case.job or 'a job of unknown type'}  {case.job_id}")]
    for label, text, mood in _facts(case):
        if text:
            depth = text[: len(text) - len(text.lstrip())]  # of a line of a tree
            told = [colour(part, mood) for part in wrapped(text, columns - _LABEL_COLUMNS, indent=depth)]
            lines += below(f"  {label:<{_LABEL_COLUMNS - 2}}", told, _LABEL_COLUMNS)
    return lines


def _facts(case: Case) -> list[tuple[str, str, Mood]]:
    checkpoint, live = case.last_checkpoint, case.live
    last = ""
    if checkpoint is not None:
        used = f"{checkpoint.memory_mb:.1f} MB at " if checkpoint.memory_mb is not None else ""
        ago = f", {span(case.now - checkpoint.at)} ago" if checkpoint.at is not None and case.running else ""
        last = f"{used}{checkpoint.operation}{ago}"
    return [
        ("call", case.call, "plain"),
        ("queue", case.queue, "plain"),
        ("status", case.status or "forgotten by RQ", "plain"),
        ("execution", case.owner.execution if case.owner else "", "plain"),
        ("worker", case.worker + (" (silent)" if case.silent else ""), "bad" if case.silent else "plain"),
        ("ceiling", f"{show_mb(case.ceiling_mb)} MB" if case.ceiling_mb else "", "plain"),
        ("usage now", f"{live.usage_mb:.1f} MB ({_share(live.usage_mb, live.limit_mb)})" if live else "", "plain"),
        ("peak", _peak(case), "plain"),
        ("checkpoint", last, "plain"),
        ("items done", f"{case.items_done:,}" if case.items_done else "", "plain"),
        ("children", _children(case.children) if case.children is not None else "", "plain"),
        *(("", line, "plain") for line in _splits(case.children)),
        ("outcome", _outcome(case), "plain" if case.running else ("good" if case.well else "bad")),
        ("error", case.error, "bad"),
        ("time", _time(case), "plain"),
        ("next", outlook(case), "plain"),
    ]


def _splits(children: Progress | None, indent: str = "  ") -> list[str]:
    """A line for each child that has split itself, below its parent's."""
    if children is None:
        return []
    lines = []
    for each in children.splits:
        number = each.job_id.removeprefix(children.job_id)  # as "-child-3"
        lines += [f"{indent}{number.removeprefix('-')} {_children(each)}", *_splits(each, indent + "  ")]
    return lines + ([f"{indent}… and {children.more:,} more that split"] if children.more else [])


def _children(children: Progress) -> str:
    total = f"{children.total:,}" if children.total is not None else "those made so far"
    text = f"{children.done:,} of {total} done, {children.failed:,} failed, {children.running:,} running"
    if children.items:
        text += f"; {children.items:,} items"
    if children.rate is not None:
        text += (
            f"; {children.rate:.2g} children a second"
            if children.rate < 10
            else f"; {children.rate:,.0f} children a second"
        )
    return text + (f"; {span(children.eta_seconds)} left" if children.eta_seconds else "")


def _outcome(case: Case) -> str:
    counts = [(case.executions, "execution"), (case.breached, "breach"), (case.resumes, "resume")]
    counts += [(case.escalations, "escalation")]
    told = [counted(count, thing) for count, thing in counts if count]
    return ", ".join([case.outcome, *told])


def _peak(case: Case) -> str:
    if case.peak_mb is None:
        return ""
    share = f" ({_share(case.peak_mb, case.ceiling_mb)} of the ceiling)" if case.ceiling_mb else ""
    return f"{case.peak_mb:.1f} MB{share}"


def _share(used_mb: float, limit_mb: float) -> str:
    return f"{100 * used_mb / limit_mb:.0f} %" if limit_mb else "no ceiling"


def _time(case: Case) -> str:
    if case.began_at is None:
        return ""
    end = case.ended_at if case.ended_at is not None else case.now
    took = "" if case.ended_at is None and not case.running else f", {span(end - case.began_at)}"
    return f"began {date_and_clock(case.began_at)}{took}{' so far' if took and case.ended_at is None else ''}"


def _timeline(case: Case, columns: int, colour: Colour, *, plain: bool) -> list[str]:
    told = lines(case)
    if not told:
        return []
    shown = [_shown(line, told[0].at, case.ceiling_mb, columns, colour, plain=plain) for line in told]
    if case.cut_at is not None:
        shown.insert(sum(line.at <= case.cut_at for line in told), ["  what was between is forgotten"])
    if case.record.job and case.told and not isinstance(case.told[0].event, JobStarted):
        shown.insert(0, ["  what was before is forgotten"])
    return [part for parts in shown for part in parts]


def _shown(
    line: TimelineEntry, start: float, limit_mb: float | None, columns: int, colour: Colour, *, plain: bool
) -> list[str]:
    used = f"{line.memory_mb:8.1f} MB" if line.memory_mb is not None else " " * 11
    filled = bar((line.memory_mb or 0.0) / limit_mb, _BAR_COLUMNS, ascii_only=plain) if limit_mb else ""
    filled = filled if line.memory_mb is not None else " " * len(filled)
    left = f"{offset(line.at - start):>9} {used}  {filled}{'  ' if filled else ''}"
    return below(left, [colour(part, line.mood) for part in wrapped(line.text, columns - len(left))], len(left))


def offset(seconds: float) -> str:
    """``+12.3 s``, ``+3:07`` or ``+1:02:07`` since the beginning."""
    if seconds < 60:
        return f"+{max(0.0, seconds):.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"+{hours}:{minute:02}:{second:02}" if hours else f"+{minute}:{second:02}"


def _growth(case: Case) -> list[tuple[str, Lines]]:
    """Where it grew, by execution, with a title each; breaches have it in their evidence."""
    found = [(words.where_it_grew(each.peak_mb), each.grew) for each in case.grown]
    live = case.live
    return found if live is None else [*found, (words.where_it_grew(live.peak_mb, so_far=True), live.grew)]


def _grew(grew: Lines, columns: int) -> list[str]:
    lines = []
    for grown_mb, line in grew:
        lines += below(f"  {grown_mb:>7.0f} MB  ", wrapped(line, columns - 14), 14)
    return lines


def _breaches_title(case: Case) -> str:
    kept = len(case.breaches)
    return "breaches" if kept == case.breached else f"breaches (the last {kept} of {case.breached})"


def _breaches(case: Case, columns: int, colour: Colour) -> list[str]:
    lines = []
    for number, breach in enumerate(case.breaches):
        if number:
            lines.append("")
        lines += ["  " + colour(part, "bad") for part in wrapped(breach.summary(), columns - 2)]
        for label, text in evidence(breach):
            lines += below(f"    {label:<15}", wrapped(text, columns - 19), 19)
    return lines


def _under(title: str, lines: list[str]) -> list[str]:
    return [title, *lines] if lines else []
