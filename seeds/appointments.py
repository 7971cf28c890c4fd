"""Made-up appointments: a pure stream of plain dicts, decided by a seed number alone, that can begin anywhere.

Appointments are in working hours where the customer is, within two weeks from ``around`` on; `from_day` moves them to
the weeks in which they are needed. As in life, some customers want no reminder of some type, some addresses are
mistyped, some time zones do not exist, some appointments are cancelled; the shares are stated below.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from functools import cache, partial
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from jobs.reminder_types import zone_called
from seeds.blocks import pick, stream
from seeds.people import BY_SHARE, PEOPLE
from seeds.phone_numbers import invalid_number, valid_number

FIRST_DAY = date(2030, 1, 7)
BASE = datetime.combine(FIRST_DAY, time(), tzinfo=timezone.utc)
DAYS = 14
FIRST_HOUR, LAST_HOUR = 8, 18
CANCELLED = 0.03
UNKNOWN_ZONES = MISTYPED_EMAILS = MISTYPED_PHONES = 0.01
WITHOUT_EMAIL, WITHOUT_PHONE, WITH_PUSH = 0.05, 0.10, 0.40

ZONES = {
    "US": ("America/New_York", "America/Chicago", "America/Denver", "America/Phoenix", "America/Los_Angeles"),
    "DE": ("Europe/Berlin",),
    "FR": ("Europe/Paris",),
    "GB": ("Europe/London",),
    "ES": ("Europe/Madrid", "Atlantic/Canary"),
    "BR": ("America/Sao_Paulo", "America/Manaus"),
    "IN": ("Asia/Kolkata",),
    "TR": ("Europe/Istanbul",),
    "IT": ("Europe/Rome",),
    "PL": ("Europe/Warsaw",),
}
NO_ZONES = ("Europe/Munich", "GMT+25", "Central European Time", "")
TITLES = (
    "Dental check-up",
    "Haircut",
    "Consultation",
    "Physiotherapy",
    "Tyre change",
    "Viewing of the flat",
    "Eye test",
)


def appointments(seed: int, count: int, start: int = 0, *, around: datetime = BASE) -> Iterator[dict[str, Any]]:
    """Yield ``count`` appointments from index ``start`` on, as columns of `jobs.tables.Appointment`.

    Args:
        around: an aware datetime; the first appointments are on that day.
    """
    return stream("appointments", seed, count, start, partial(_appointment, around=around))


def from_day(row: dict[str, Any], day: date) -> dict[str, Any]:
    """An appointment of the stream, moved by the days from `FIRST_DAY` to ``day``, to the same hour there."""
    zone = zone_called(row["time_zone"]) or timezone.utc
    local: datetime = row["starts_at"].astimezone(zone).replace(tzinfo=None) + (day - FIRST_DAY)
    return row | {"starts_at": local.replace(tzinfo=zone).astimezone(timezone.utc)}


def _appointment(rng: Random, index: int, around: datetime) -> dict[str, Any]:
    country = pick(rng, BY_SHARE)
    zone = pick(rng, ZONES[country])
    people = PEOPLE[country]
    return {
        "title": pick(rng, TITLES),
        "name": f"{pick(rng, people.first)} {pick(rng, people.last)}",
        "email": _email(rng, index),
        "phone": _phone(rng, country, index),
        "push_token": f"device-{index:010d}" if rng.random() < WITH_PUSH else "",
        "starts_at": _working_hour(rng, zone, around),
        "time_zone": pick(rng, NO_ZONES) if rng.random() < UNKNOWN_ZONES else zone,
        "status": "cancelled" if rng.random() < CANCELLED else "booked",
    }


def _working_hour(rng: Random, zone: str, around: datetime) -> datetime:
    day = around.astimezone(_zone(zone)).date() + timedelta(days=int(rng.random() * DAYS))
    hour = FIRST_HOUR + int(rng.random() * (LAST_HOUR - FIRST_HOUR))
    local = datetime.combine(day, time(hour, pick(rng, (0, 15, 30, 45))), tzinfo=_zone(zone))
    return local.astimezone(timezone.utc)


def _email(rng: Random, index: int) -> str:
    drawn = rng.random()
    if drawn < WITHOUT_EMAIL:
        return ""
    return f"customer{index}(at)example.com" if drawn < WITHOUT_EMAIL + MISTYPED_EMAILS else f"c{index}@example.com"


def _phone(rng: Random, country: str, index: int) -> str:
    drawn = rng.random()
    if drawn < WITHOUT_PHONE:
        return ""
    number = invalid_number if drawn < WITHOUT_PHONE + MISTYPED_PHONES else valid_number
    return number(rng, country, index)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
