"""Made-up calls with their transcripts: a pure stream of rows, each decided by a seed and its index alone.

Each call has a random sequence of its own, so a stream may begin anywhere, and is the same on every machine. `facts`
says what a call is meant to sound like, and `drift` which agents do better or worse with time: so tests can compare
what the job finds with what is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any, Literal, NamedTuple

from seeds.blocks import normal, pick
from seeds.phrases import AGENT, CLOSINGS, CUSTOMER, OPENINGS, SLOTS

Tone = Literal["positive", "neutral", "negative", "silent"]

AGENTS = 40
FIRST_DAY = datetime(2025, 1, 1, tzinfo=timezone.utc)
DAYS = 365

MEDIAN_CHARACTERS = 2500
SPREAD = 0.8  # of the logarithm of lengths
LONG_EVERY = 5000  # one call in 5,000 is a thousand to four thousand times as long as the median
LONG_FACTOR = 1000

SILENT = 0.02
JSON_SHARE = 0.3
POSITIVE, NEGATIVE = 0.35, 0.2  # of the calls of a steady agent
DRIFT = 0.3  # how much the share of positive calls rises in the year of one who learns

CUSTOMER_MOOD = 0.6  # of a customer's sentences have the call's tone
AGENT_MOOD = 0.25
CONTRARY = 0.08  # of those have another one

_OTHERS = {"positive": ("negative",), "negative": ("positive",), "neutral": ("positive", "negative")}


class Facts(NamedTuple):
    """What is decided about a call before its words are made up. ``characters``: its approximate length."""

    agent_id: int
    started_at: datetime
    transcript_format: Literal["text", "json"]
    tone: Tone
    characters: int


def transcripts(seed: int, count: int, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` calls from index ``start`` on, as rows of the table; agents have ids from 1 to `AGENTS`.

    Holds one at a time.
    """
    for index in range(start, start + count):
        rng, known = _drawn(seed, index)
        turns = [] if known.tone == "silent" else _turns(rng, known)
        yield {
            "agent_id": known.agent_id,
            "started_at": known.started_at,
            "transcript_format": known.transcript_format,
            "transcript": _written(turns, known.transcript_format),
        }


def agents() -> Iterator[dict[str, Any]]:
    """Yield the agents of the calls, as rows of the table."""
    for number in range(1, AGENTS + 1):
        yield {"id": number, "name": f"{SLOTS['name'][number % len(SLOTS['name'])]} {number}"}


def facts(seed: int, index: int) -> Facts:
    return _drawn(seed, index)[1]


def first_long(seed: int) -> int:
    """The index of the first very long call; the next comes `LONG_EVERY` later."""
    return (seed + 1) * 2_654_435_761 % LONG_EVERY


def drift(agent_id: int) -> int:
    """1: customers sound better with time; -1: worse; 0: the same."""
    return (0, 1, 0, -1)[agent_id % 4]


def _drawn(seed: int, index: int) -> tuple[Random, Facts]:
    """A call's facts, and its sequence after them."""
    rng = Random(seed + (index + 1 << 64))
    agent_id = 1 + int(AGENTS * rng.random() ** 2)  # the first of them take most calls
    day = DAYS * rng.random()
    form: Literal["text", "json"] = "json" if rng.random() < JSON_SHARE else "text"
    tone = _tone(rng.random(), drift(agent_id) * (day / DAYS - 0.5))
    length = MEDIAN_CHARACTERS * math.exp(SPREAD * normal(rng))
    if index % LONG_EVERY == first_long(seed):
        tone = tone if tone != "silent" else "neutral"
        length = MEDIAN_CHARACTERS * LONG_FACTOR * (1 + 3 * rng.random())
    started_at = FIRST_DAY + timedelta(seconds=int(86400 * day))
    return rng, Facts(agent_id, started_at, form, tone, int(length))


def _tone(draw: float, better: float) -> Tone:
    """By shares that move with ``better``, from -0.5 to 0.5."""
    positive, negative = POSITIVE + DRIFT * better, NEGATIVE - DRIFT * better / 2
    if draw < SILENT:
        return "silent"
    if draw < SILENT + positive:
        return "positive"
    return "negative" if draw < SILENT + positive + negative else "neutral"


def _turns(rng: Random, known: Facts) -> list[tuple[str, str]]:
    """Role and words of each turn, as Retell names them."""
    turns = [("agent", _filled(rng, OPENINGS))]
    length, first = len(turns[0][1]), True
    while length < known.characters:
        said = [_sentence(rng, CUSTOMER, known.tone, 1.0 if first else CUSTOMER_MOOD)]
        while rng.random() < 0.5 and len(said) < 4:
            said.append(_sentence(rng, CUSTOMER, known.tone, CUSTOMER_MOOD))
        turns.append(("user", " ".join(said)))
        turns.append(("agent", _sentence(rng, AGENT, known.tone, AGENT_MOOD)))
        length, first = length + len(turns[-2][1]) + len(turns[-1][1]) + 14, False
    turns.append(("agent", _filled(rng, CLOSINGS)))
    return turns


def _sentence(rng: Random, of: dict[str, tuple[str, ...]], tone: Tone, mood: float) -> str:
    if rng.random() >= mood:
        return _filled(rng, of["neutral"])
    return _filled(rng, of[pick(rng, _OTHERS[tone]) if rng.random() < CONTRARY else tone])


def _filled(rng: Random, templates: Sequence[str]) -> str:
    template = pick(rng, templates)
    return template.format_map(_Slots(rng)) if "{" in template else template


class _Slots(dict[str, str]):
    """Draws for the slots that a template has."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng

    def __missing__(self, name: str) -> str:
        if name == "digits":
            return f"{int(self._rng.random() * 10_000):04}"
        return pick(self._rng, SLOTS[name])


def _written(turns: list[tuple[str, str]], form: Literal["text", "json"]) -> str:
    """As Retell writes it; nothing at all where nobody spoke."""
    if not turns:
        return ""
    if form == "json":
        return json.dumps([{"role": role, "content": words} for role, words in turns], ensure_ascii=False)
    return "".join(f"{role.capitalize()}: {words}\n" for role, words in turns)
