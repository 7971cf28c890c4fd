"""Made-up staff, event types, and rows of a file that assigns the one to the other: pure streams of plain dicts.

Each is decided by a seed number alone and can begin anywhere. Of the rows of a file `BAD` are bad in one of the usual
ways; more name staff who have left, the same assignment twice, or event types that exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

from seeds.blocks import pick, stream
from seeds.people import PEOPLE

STAFF, EVENT_TYPES = 1_000, 60
INACTIVE = 0.05
EXCLUSIVE_EVERY, GROUP = 3, 4  # each third event type is exclusive, within a group of four
BAD = 0.05  # in equal shares: unknown staff, unknown event type, no staff, no such role

SUBJECTS = ("intro-call", "demo", "support", "onboarding", "review", "training", "audit", "home-visit")
ROLES = ("host", "host", "host", "assistant", "backup")
WRONG_ROLES = ("boss", "hots", "0")

_COUNTRIES = tuple(PEOPLE)


def staff_email(index: int) -> str:
    return f"staff.{index:06d}@example.com"


def event_type_slug(index: int) -> str:
    return f"{SUBJECTS[index % len(SUBJECTS)]}-{index:04d}"


def staff(seed: int, count: int, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` members of staff from index ``start`` on, as columns of `jobs.tables.Staff`."""
    return stream("staff", seed, count, start, _member)


def event_types(seed: int, count: int, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` event types from index ``start`` on, as columns of `jobs.tables.EventType`."""
    return stream("event types", seed, count, start, _event_type)


def assignments(
    seed: int, count: int, start: int = 0, *, staff_count: int = STAFF, event_type_count: int = EVENT_TYPES
) -> Iterator[dict[str, str]]:
    """Yield ``count`` rows of a file from index ``start`` on: staff (email), event_type (slug), role; all text.

    Args:
        staff_count, event_type_count: how many there are to choose from.
    """
    make = partial(_assignment, staff_count=staff_count, event_type_count=event_type_count)
    return stream("assignments", seed, count, start, make)


def _member(rng: Random, index: int) -> dict[str, Any]:
    people = PEOPLE[pick(rng, _COUNTRIES)]
    name = f"{pick(rng, people.first)} {pick(rng, people.last)}"
    return {"email": staff_email(index), "name": name, "active": rng.random() >= INACTIVE}


def _event_type(rng: Random, index: int) -> dict[str, Any]:
    subject = SUBJECTS[index % len(SUBJECTS)].replace("-", " ")
    group = f"group-{index // EXCLUSIVE_EVERY // GROUP}" if index % EXCLUSIVE_EVERY == 0 else None
    return {"slug": event_type_slug(index), "name": f"{subject.capitalize()} {index}", "exclusive_group": group}


def _assignment(rng: Random, index: int, staff_count: int, event_type_count: int) -> dict[str, str]:
    row = {
        # Squared: some are named far more often than others.
        "staff": staff_email(int(rng.random() ** 2 * staff_count)),
        "event_type": event_type_slug(int(rng.random() * event_type_count)),
        "role": pick(rng, ROLES),
    }
    mistake = int(rng.random() / BAD * 4)
    if mistake == 0:
        row["staff"] = f"nobody.{index}@example.com"
    elif mistake == 1:
        row["event_type"] = f"no-such-{index}"
    elif mistake == 2:
        row["staff"] = ""
    elif mistake == 3:
        row["role"] = pick(rng, WRONG_ROLES)
    return row
