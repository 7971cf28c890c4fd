"""Made-up customers: a pure stream of plain dicts, decided by a seed number alone. It can begin anywhere.

The same seed gives the same customers on every machine. The first n of a longer stream are the stream of n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random

from seeds.blocks import normal, pick, stream
from seeds.people import BY_SHARE, NOTES, PEOPLE, People
from seeds.phone_numbers import invalid_number, valid_number

INVALID_NUMBERS = 0.02
NEWCOMERS = 0.08  # with a name from another country than the one they live in
WITHOUT_NOTES = 0.15
LONGEST_NOTES = 4000


def customers(seed: int, count: int, start: int = 0) -> Iterator[dict[str, str]]:
    """Yield ``count`` customers from index ``start`` on: name, phone, country, language, notes. Holds one at a time."""
    return stream("customers", seed, count, start, _customer)


def _customer(rng: Random, index: int) -> dict[str, str]:
    country = pick(rng, BY_SHARE)
    people = PEOPLE[country]
    language = pick(rng, people.languages)
    namesakes = people if rng.random() >= NEWCOMERS else PEOPLE[pick(rng, BY_SHARE)]
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
    last = pick(rng, people.last)
    if rng.random() < 1 / 7:
        last = f"{last}{people.joined_by}{pick(rng, people.last)}"
    return f"{pick(rng, people.first)} {last}"


def _notes(rng: Random, sentences: Sequence[str]) -> str:
    """Nothing, a line, or (rarely) pages: lengths are log-normal, median about 70 characters."""
    if rng.random() < WITHOUT_NOTES:
        return ""
    length = min(LONGEST_NOTES, 70 * math.exp(1.1 * normal(rng)))
    notes = pick(rng, sentences)
    while len(notes) < length:
        notes += ("\n" if rng.random() < 0.2 else " ") + pick(rng, sentences)
    return notes[:LONGEST_NOTES]
