"""Decides what to do with a line that assigns a member of staff to an event type. Pure.

A line is a mapping with ``staff`` (an email address), ``event_type`` (a slug) and a ``role`` (by default
`DEFAULT_ROLE`). Lines count in the order of the input, in whatever order they are read:

- A line is skipped if it cannot be read, or names somebody or something unknown or inactive.
- If several lines are for the same two, the first one counts; the others are duplicates.
- Nobody is assigned to two event types of one exclusive group. An existing assignment wins over a line, and an earlier
  line over a later one. The other one is a conflict.
- An existing assignment gets the line's role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from jobs.tables.staff import AssignmentRole, SkipReason

ROLES: tuple[AssignmentRole, ...] = ("host", "assistant", "backup")
DEFAULT_ROLE: AssignmentRole = "host"
LONGEST = 200  # characters of a field


class Line(NamedTuple):
    """A line with all it needs. It is not known yet whether the two that it names exist."""

    position: int
    staff: str
    event_type: str
    role: AssignmentRole


class Skip(NamedTuple):
    """A line that is not applied, as it was written, and why."""

    position: int
    staff: str
    event_type: str
    reason: SkipReason
    detail: str


def parse(position: int, record: Any) -> Line | Skip:
    """The line at this position of the input."""
    fields = getattr(record, "_mapping", record)  # a row of a query
    if not isinstance(fields, Mapping):
        return Skip(position, "", "", "malformed", f"a {type(record).__name__} and no object with fields")
    staff, event_type, role = (fields.get(name) for name in ("staff", "event_type", "role"))

    def skip(detail: str) -> Skip:
        return Skip(position, _shown(staff), _shown(event_type), "malformed", detail)

    if None in fields:
        return skip(f"{len(fields[None])} fields more than there are columns")
    for name, value in (("staff", staff), ("event_type", event_type)):
        if not isinstance(value, str) or not value.strip():
            return skip(f"no {name}")
        if len(value) > LONGEST or not value.strip().isprintable():
            return skip(f"{name} is longer than {LONGEST} characters, or has some that cannot be shown")
    named = "" if role is None else role.strip() if isinstance(role, str) else role
    known = next((each for each in ROLES if each == (DEFAULT_ROLE if named == "" else named)), None)
    if known is None:
        return skip(f"role {_shown(role)!r} is none of {', '.join(ROLES)}")
    assert isinstance(staff, str)
    assert isinstance(event_type, str)
    return Line(position, staff.strip().lower(), event_type.strip(), known)


class StagedLine(Protocol):
    """A valid line, with what is known of the two that it names; None: it has been deleted in the meantime.

    ``repeated``: an earlier line of the input is for the same two.
    """

    position: int
    staff_id: int
    event_type_id: int
    role: AssignmentRole
    email: str | None
    slug: str | None
    exclusive_group: str | None
    repeated: bool


class Held(NamedTuple):
    slug: str
    exclusive_group: str | None
    role: AssignmentRole


@dataclass
class Decided:
    """What becomes of some lines: ``written`` are those to be written, of which some are new and some change a role."""

    written: list[StagedLine] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    created: int = 0
    updated: int = 0
    unchanged: int = 0


def decide(lines: Iterable[StagedLine], active: Mapping[int, bool], held: dict[int, dict[int, Held]]) -> Decided:
    """What becomes of these lines, in the order of the input for each member of staff.

    Args:
        active: whether each member of staff is; who is not in it does not exist any more.
        held: what each has, by member of staff and event type; grows by what is decided.
    """
    decided = Decided()
    for line in lines:
        theirs = held.setdefault(line.staff_id, {})
        skip = _why_not(line, active.get(line.staff_id), theirs)
        if skip is not None:
            decided.skips.append(skip)
            continue
        before = theirs.get(line.event_type_id)
        if before is None:
            theirs[line.event_type_id] = Held(line.slug or "", line.exclusive_group, line.role)
            decided.created += 1
        elif before.role != line.role:
            theirs[line.event_type_id] = before._replace(role=line.role)
            decided.updated += 1
        else:
            decided.unchanged += 1
            continue
        decided.written.append(line)
    return decided


def _why_not(line: StagedLine, active: bool | None, theirs: Mapping[int, Held]) -> Skip | None:
    def skip(reason: SkipReason, detail: str) -> Skip:
        return Skip(line.position, line.email or "", line.slug or "", reason, detail)

    if active is None or line.email is None:
        return skip("unknown staff", "deleted while this ran")
    if line.slug is None:
        return skip("unknown event type", "deleted while this ran")
    if not active:
        return skip("inactive staff", f"{line.email} is not active")
    if line.repeated:
        return skip("duplicate", "an earlier line is for the same two")
    if line.event_type_id not in theirs and line.exclusive_group is not None:
        for other in theirs.values():
            if other.exclusive_group == line.exclusive_group:
                return skip("conflict", f"{line.email} has {other.slug}, and both are of {line.exclusive_group}")
    return None


def _shown(value: Any) -> str:
    """A field as it was written, if that can be shown, and not too long."""
    text = "" if value is None else value if isinstance(value, str) else repr(value)
    text = text[: LONGEST + 1]
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
