"""Made-up outcomes of calls to learn from: ``python -m seeds.training_rows --rows 20000 rows.csv``.

A pure stream of plain dicts, decided by a seed number and each row's index alone: a stream may begin anywhere, and the
same rows come on every machine and Python, since only ``Random.random`` is drawn from.

There is something to learn, and not all of it can be learnt. First a row's outcome is drawn (`OUTCOMES`, unbalanced),
then what goes with it: more attempts and later hours where nobody answered, words in the notes. `MISLEADING` rows get
what goes with another outcome, as notes of clerks do. A linear classifier reaches a balanced F1 of at least
`LEARNABLE_F1` on rows it has not seen, where saying ``no_answer`` each time has 0.14 (both tested).
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import click

from seeds.people import NOTES, PEOPLE

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
_BY_SHARE = tuple(country for country, people in PEOPLE.items() for _ in range(people.share))
_MOST_ROWS = 10**9  # ids have so many digits

Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and what goes with it.

    Attributes:
        share: of 1,000 calls.
        hour, attempts, days, months: where these lie about, before they are scattered.
        products: one is picked; one that stands there twice is twice as likely.
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
    name = _pick(rng, _BY_OUTCOME)
    looks_like = OUTCOMES[name if rng.random() >= MISLEADING else _pick(rng, tuple(OUTCOMES))]
    country = _pick(rng, _BY_SHARE)
    language = _pick(rng, PEOPLE[country].languages)
    hour = min(max(round(looks_like.hour + 3 * _normal(rng)), _HOURS[0]), _HOURS[-1])
    return {
        "call_id": f"call-{index:09d}",
        "country": country,
        "language": language,
        "product": _pick(rng, looks_like.products),
        "weekday": _pick(rng, _WEEKDAYS),
        "hour": str(hour),
        "attempts": _sometimes_missing(rng, str(1 + int(looks_like.attempts * -math.log(1 - rng.random())))),
        "days_since_contact": _sometimes_missing(rng, str(int(looks_like.days * math.exp(0.9 * _normal(rng))))),
        "contract_months": _sometimes_missing(rng, str(int(looks_like.months * math.exp(0.6 * _normal(rng))))),
        "monthly_fee": f"{24 * math.exp(0.5 * _normal(rng)):.2f}",
        "notes": _notes(rng, language, looks_like.said),
        "outcome": name,
    }


def _notes(rng: Random, language: str, said: Sequence[str]) -> str:
    """What was said, among what is always noted; or only the latter, or nothing."""
    if rng.random() < WITHOUT_NOTES:
        return ""
    sentences = [_pick(rng, NOTES[language]) for _ in range(int(3 * rng.random()))]
    if rng.random() < 0.7 or not sentences:
        sentences.insert(int(rng.random() * (len(sentences) + 1)), _pick(rng, said))
    return " ".join(sentences)


def _sometimes_missing(rng: Random, text: str) -> str:
    return text if rng.random() >= MISSING_NUMBERS else ""


def _normal(rng: Random) -> float:
    """A standard normal draw (Box and Muller), from ``random`` alone so that it stays the same."""
    return math.sqrt(-2.0 * math.log(1.0 - rng.random())) * math.cos(math.tau * rng.random())


def _pick(rng: Random, items: Sequence[Item]) -> Item:
    return items[int(rng.random() * len(items))]


def write_csv(
    path: Path, seed: int, count: int, start: int = 0, on_rows: Callable[[int], object] = lambda rows: None
) -> None:
    """Write rows to ``path``, whole or not at all. ``on_rows`` is told every thousand. Raises `OSError`."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for number, row in enumerate(training_rows(seed, count, start), start=1):
                writer.writerow(row)
                if number % 1000 == 0 or number == count:
                    on_rows(number % 1000 or 1000)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink()


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(1, _MOST_ROWS), default=20_000, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="The same: same rows.")
def main(path: Path, rows: int, seed: int) -> None:
    """Write a CSV file of made-up outcomes of calls to PATH."""
    try:
        with click.progressbar(length=rows, label="rows", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            write_csv(path, seed, rows, on_rows=bar.update)
    except OSError as error:
        click.echo(f"Error: {path}: {error.strerror}", err=True)
        sys.exit(1)
    click.echo(f"{path}: {rows:,} rows, {path.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    main(prog_name="python -m seeds.training_rows")
