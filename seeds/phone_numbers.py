"""Made-up phone numbers: right in form for their country, or wrong in one of the usual ways.

The digits are invented, but a number may well belong to somebody: do not dial them. (With a real
Retell account the seeded caller's number, `FROM_NUMBER`, is refused, since no account owns it.)
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from jobs.phone_numbers import E164
from seeds.blocks import pick

# From the range that North America keeps for fiction.
FROM_NUMBER = "+14155550100"


def is_e164(number: str) -> bool:
    """Whether the number can be dialled as it is written."""
    return E164.fullmatch(number) is not None


class NumberPlan(NamedTuple):
    """Numbers of a country: one of the prefixes (after the country code), then ``digits`` digits (6 to 8)."""

    country_code: str
    prefixes: tuple[str, ...]
    digits: int


_US_AREAS = ("212", "213", "305", "312", "347", "404", "415", "512", "617", "702", "718", "808", "907")

PLANS: dict[str, NumberPlan] = {
    "US": NumberPlan("1", tuple(area + first for area in _US_AREAS for first in "23456789"), 6),
    "IN": NumberPlan("91", ("63", "70", "73", "79", "80", "88", "90", "94", "98", "99"), 8),
    "BR": NumberPlan("55", tuple(area + "9" for area in ("11", "21", "31", "41", "51", "61", "71", "85")), 8),
    "DE": NumberPlan("49", ("1511", "1512", "1516", "1520", "1522", "1573", "1575", "1577", "1590"), 7),
    "FR": NumberPlan("33", ("60", "61", "62", "66", "67", "68", "75", "76", "77"), 7),
    "GB": NumberPlan("44", ("7400", "7512", "7700", "7711", "7824", "7890", "7911", "7975"), 6),
    "ES": NumberPlan("34", ("600", "609", "616", "627", "639", "655", "666", "678", "699", "711"), 6),
    "TR": NumberPlan("90", ("501", "505", "530", "532", "535", "541", "542", "551", "555"), 7),
    "IT": NumberPlan("39", ("320", "328", "333", "339", "340", "347", "349", "366", "388"), 7),
    "PL": NumberPlan("48", ("501", "512", "530", "600", "602", "660", "691", "721", "790"), 6),
}

_LAST_DIGITS = 10**6
_STRIDE = 611_953  # shares no factor with 10**6, so its multiples run through all six-digit ends


def valid_number(rng: Random, country: str, index: int) -> str:
    """A number of the country in E.164. Numbers of up to a million different indexes all differ."""
    plan = PLANS[country]
    prefix = pick(rng, plan.prefixes)
    filler = plan.digits - 6
    middle = f"{int(rng.random() * 10**filler):0{filler}d}" if filler else ""
    return f"+{plan.country_code}{prefix}{middle}{index * _STRIDE % _LAST_DIGITS:06d}"


def invalid_number(rng: Random, country: str, index: int) -> str:
    """A number as bad data has it: never valid E.164, and never the same mistake for long."""
    return pick(rng, MISTAKES)(valid_number(rng, country, index))


MISTAKES: tuple[Callable[[str], str], ...] = (
    lambda number: number[1:],  # no plus
    lambda number: number[:5],  # too short
    lambda number: number + number[1:8],  # too long
    lambda number: number[:-7] + "FLOWERS",
    lambda number: f"{number[:3]} {number[3:6]} {number[6:]}",
    lambda number: "",
)
