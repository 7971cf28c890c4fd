"""Findings as text that people read, and as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from rqmem.observe.problems import Finding, Mark, healthy
from rqmem.observe.vocabulary import versioned
from rqmem.text import below, counted, json_text, wrapped

_NAME_COLUMNS = 10
_MARK_COLUMNS = 7
_INDENT = 2 + _MARK_COLUMNS + 2 + _NAME_COLUMNS + 2


def group_lines(group: str, findings: Sequence[Finding], columns: int, colour: Callable[[str, Mark], str]) -> list[str]:
    """The findings of one group below its name, marks and names aligned, what to do below what was found.

    Args:
        columns: lines are broken at.
        colour: gives a mark's text its colour.
    """
    lines = [group]
    columns = max(40, columns - _INDENT)
    for each in findings:
        mark = colour(f"{each.mark:<{_MARK_COLUMNS}}", each.mark)
        told = wrapped(each.text, columns, whole_words=True)
        lines += below(f"  {mark}  {each.name:<{_NAME_COLUMNS}}  ", told, _INDENT)
        if each.advice:
            lines += below(" " * _INDENT + "-> ", wrapped(each.advice, columns - 3, whole_words=True), _INDENT + 3)
    return lines


def summary(findings: Iterable[Finding]) -> str:
    marks = Counter(each.mark for each in findings)
    return f"{counted(marks['problem'], 'problem')}, {counted(marks['note'], 'note')}"


def to_json(groups: Mapping[str, Sequence[Finding]]) -> str:
    """``{"version", "healthy", "findings": [{"group", "name", "mark", "text", "advice"}, ...]}``."""
    findings = [{"group": group, **vars(each)} for group, found in groups.items() for each in found]
    well = all(healthy(found) for found in groups.values())
    return json_text(versioned(healthy=well, findings=findings), indent=2)
