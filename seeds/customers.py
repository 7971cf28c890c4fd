"""Made-up customers: a pure stream of plain dicts, decided by a seed number alone.

The same seed gives the same customers on every machine and Python: only ``Random.random`` is drawn
from, whose sequence Python promises to keep. The first n of a longer stream are the stream of n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeVar

from seeds.people import NOTES, PEOPLE, People
from seeds.phone_numbers import invalid_number, valid_number

INVALID_NUMBERS = 0.02
NEWCOMERS = 0.08  # with a name from another country than the one they live in
WITHOUT_NOTES = 0.15
LONGEST_NOTES = 4000
BLOCK = 10_000  # customers drawn from one sequence, so that a stream can begin anywhere without drawing all before

_BY_SHARE = tuple(country for country, people in PEOPLE.items() for _ in range(people.share))

Item = TypeVar("Item")


def customers(seed: int, count: int, start: int = 0) -> Iterator[dict[str, str]]:
    """Yield ``count`` customers from index ``start`` on: name, phone, country, language, notes. Holds one at a time."""
    end = start + count
    for first in range(start - start % BLOCK, end, BLOCK):
        rng = Random(seed + (first // BLOCK << 64))
        for index in range(first, min(first + BLOCK, end)):
            customer = _customer(rng, index)
            if index >= start:
                yield customer


def _customer(rng: Random, index: int) -> dict[str, str]:
    country = _pick(rng, _BY_SHARE)
    people = PEOPLE[country]
    language = _pick(rng, people.languages)
    namesakes = people if rng.random() >= NEWCOMERS else PEOPLE[_pick(rng, _BY_SHARE)]
    number = invalid_number if rng.random() < INVALID_NUMBERS else valid_number
    return {
        "name": _name(rng, namesakes),
        "phone": number(rng, country, index),
        "country": country,
        "language": language,
        "notes": _notes(rng, NOTES[language]),
    }


def _name(rng: Random, people: People) -> str:
    """First and last name; one in seven has two last names."""
    last = _pick(rng, people.last)
    if rng.random() < 1 / 7:
        last = f"{last}{people.joined_by}{_pick(rng, people.last)}"
    return f"{_pick(rng, people.first)} {last}"


def _notes(rng: Random, sentences: Sequence[str]) -> str:
    """Nothing, a line, or (rarely) pages: lengths are log-normal, median about 70 characters."""
    if rng.random() < WITHOUT_NOTES:
        return ""
    length = min(LONGEST_NOTES, 70 * math.exp(1.1 * _normal(rng)))
    notes = _pick(rng, sentences)
    while len(notes) < length:
        notes += ("\n" if rng.random() < 0.2 else " ") + _pick(rng, sentences)
    return notes[:LONGEST_NOTES]


def _normal(rng: Random) -> float:
    """A standard normal draw (Box and Muller), from ``random`` alone so that it stays the same."""
    return math.sqrt(-2.0 * math.log(1.0 - rng.random())) * math.cos(math.tau * rng.random())


def _pick(rng: Random, items: Sequence[Item]) -> Item:
    return items[int(rng.random() * len(items))]
