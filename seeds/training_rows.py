"""Made-up outcomes of calls to learn from: a pure stream of plain dicts.

A seed number and the row's index alone decide each: a stream may begin anywhere, and is the same on every machine.

There is something to learn, and not all of it can be learnt. First a row's outcome is drawn (`OUTCOMES`, unbalanced),
then what goes with it: more attempts and later hours where nobody answered, words in the notes. `MISLEADING` rows get
what goes with another outcome, as notes of clerks do. A linear classifier reaches a balanced F1 of at least
`LEARNABLE_F1` on rows it has not seen, where saying ``no_answer`` each time has 0.14 (both tested).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from seeds.blocks import normal, pick
from seeds.people import BY_SHARE, NOTES, PEOPLE

LEARNABLE_F1 = 0.6
MISLEADING = 0.08
MISSING_NUMBERS = 0.06
WITHOUT_NOTES = 0.15
COLUMNS = (
    "call_id", "country", "language", "product", "weekday", "hour", "attempts", "days_since_contact",
    "contract_months", "monthly_fee", "notes", "outcome",
)  # fmt: skip

_PRODUCTS = ("basic", "plus", "premium", "business", "trial")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_HOURS = range(8, 21)
_MOST_ROWS = 10**9  # ids have nine digits


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and what goes with it.

    Attributes:
        share: of 1,000 calls.
        hour, attempts, days, months: where these lie about, before they are scattered.
        products: one is picked; one that is listed twice is twice as likely.
        said: what clerks note, one or two of them.
    """

    share: int
    hour: float
    attempts: float
    days: float
    months: float
    products: tuple[str, ...]
    said: tuple[str, ...]


OUTCOMES: dict[str, Outcome] = {
    "no_answer": Outcome(
        550, 17.5, 3.2, 60, 18, _PRODUCTS,
        ("rang out", "nobody picked up", "no reply again", "number rings, nobody there", "engaged twice"),
    ),
    "voicemail": Outcome(
        220, 12.0, 2.4, 45, 20, _PRODUCTS,
        ("left a message", "went to voicemail", "mailbox answered", "spoke to the machine", "mailbox full"),
    ),
    "callback": Outcome(
        120, 10.5, 1.7, 25, 22, (*_PRODUCTS, "business", "business"),
        ("asked to call back", "in a meeting", "busy now, later please", "wants to be called tomorrow", "driving"),
    ),
    "refused": Outcome(
        70, 15.0, 1.9, 120, 9, (*_PRODUCTS, "trial", "trial", "trial"),
        ("not interested", "hung up", "asked to be taken off the list", "angry about the call", "too expensive"),
    ),
    "appointment": Outcome(
        40, 11.0, 1.3, 12, 34, (*_PRODUCTS, "premium", "premium", "business"),
        ("agreed to meet", "date is fixed", "wants an offer in person", "visit on Thursday", "sounded keen"),
    ),
}  # fmt: skip
_BY_OUTCOME = tuple(name for name, outcome in OUTCOMES.items() for _ in range(outcome.share))


def training_rows(seed: int, count: int, start: int = 0) -> Iterator[dict[str, str]]:
    """Yield ``count`` rows from index ``start`` on, with `COLUMNS`. Holds one at a time."""
    for index in range(start, start + count):
        yield _row(Random(seed * _MOST_ROWS + index), index)


def _row(rng: Random, index: int) -> dict[str, str]:
    name = pick(rng, _BY_OUTCOME)
    looks_like = OUTCOMES[name if rng.random() >= MISLEADING else pick(rng, tuple(OUTCOMES))]
    country = pick(rng, BY_SHARE)
    language = pick(rng, PEOPLE[country].languages)
    hour = min(max(round(looks_like.hour + 3 * normal(rng)), _HOURS[0]), _HOURS[-1])
    return {
        "call_id": f"call-{index:09d}",
        "country": country,
        "language": language,
        "product": pick(rng, looks_like.products),
        "weekday": pick(rng, _WEEKDAYS),
        "hour": str(hour),
        "attempts": _sometimes_missing(rng, str(1 + int(looks_like.attempts * -math.log(1 - rng.random())))),
        "days_since_contact": _sometimes_missing(rng, str(int(looks_like.days * math.exp(0.9 * normal(rng))))),
        "contract_months": _sometimes_missing(rng, str(int(looks_like.months * math.exp(0.6 * normal(rng))))),
        "monthly_fee": f"{24 * math.exp(0.5 * normal(rng)):.2f}",
        "notes": _notes(rng, language, looks_like.said),
        "outcome": name,
    }


def _notes(rng: Random, language: str, said: Sequence[str]) -> str:
    """Notes: what was said, between general remarks; or only remarks; or nothing."""
    if rng.random() < WITHOUT_NOTES:
        return ""
    sentences = [pick(rng, NOTES[language]) for _ in range(int(3 * rng.random()))]
    if rng.random() < 0.7 or not sentences:
        sentences.insert(int(rng.random() * (len(sentences) + 1)), pick(rng, said))
    return " ".join(sentences)


def _sometimes_missing(rng: Random, text: str) -> str:
    return text if rng.random() >= MISSING_NUMBERS else ""
