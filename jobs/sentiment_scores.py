"""Scores a call: the scores of its sentences by VADER, and their means for the call and for each side of it.

VADER (Hutto and Gilbert, 2014) adds up the valence of words it knows, with rules for negation, degree and emphasis, to
a *compound* score from -1 to 1. It knows English; what it does not know is neutral. Its lexicon is loaded once in a
horse; a sentence of ten words costs some 0.1 ms, and a whole text at once would cost by the square of its length. So it
is given sentences, and the mean of their scores is the text's, as its authors advise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from jobs.aggregates import Moments, merged
from jobs.tables import Call, SentimentOutcome, Voice
from jobs.transcripts import UnreadableTranscript, spoken
from rqmem.errors import ConfigError

REMEMBERED_SENTENCES = 4096
"""People say the same short things all day. At most some 8 MB, seldom more than one."""

EPOCH = datetime(2020, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class CallScore:
    """The outcome of one call. ``scores``: of the whole call and of each speaker; empty if nothing can be scored."""

    call_id: int
    agent_id: int
    started_at: datetime
    outcome: SentimentOutcome
    scores: Mapping[Voice, float] = field(default_factory=dict)
    sentences: int = 0
    problem: str | None = None


def score_call(call: Call, pieces: Iterable[str]) -> CallScore:
    """Score a call whose transcript comes in ``pieces``; what cannot be scored is an outcome too."""
    sums: dict[Voice, float] = {}
    counts: dict[Voice, int] = {}
    who = (call.id, call.agent_id, call.started_at)
    try:
        for speaker, sentence in spoken(call.transcript_format, pieces):
            score = compound(sentence)
            voices: tuple[Voice, ...] = ("all",) if speaker is None else ("all", speaker)
            for voice in voices:
                sums[voice] = sums.get(voice, 0.0) + score
                counts[voice] = counts.get(voice, 0) + 1
    except UnreadableTranscript as error:
        return CallScore(*who, "unreadable", problem=f"{error}"[:200])
    if not counts:
        return CallScore(*who, "empty")
    return CallScore(*who, "scored", {voice: sums[voice] / counts[voice] for voice in sums}, counts["all"])


@lru_cache(REMEMBERED_SENTENCES)
def compound(sentence: str) -> float:
    """VADER's compound score of a sentence. Raises `ConfigError` as `analyzer`."""
    score: float = analyzer().polarity_scores(sentence)["compound"]
    return score


@cache
def analyzer() -> Any:
    """VADER with its lexicon, 4 MB. Raises `ConfigError` where it, or what reads JSON transcripts, is not installed."""
    try:
        import_module("ijson")  # to be missed here, and not at the first call that needs it
        return import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    except ImportError as error:
        raise ConfigError(f"calls cannot be scored ({error}): pip install 'rqmem[sentiment]'") from None


def changes(scores: Iterable[CallScore]) -> dict[tuple[int, Voice], Moments]:
    """The contributions of these calls to the figures of their agents, by agent and voice."""
    found: dict[tuple[int, Voice], Moments] = {}
    for each in scores:
        for voice, score in each.scores.items():
            one = Moments.of(score, days(each.started_at))
            before = found.get((each.agent_id, voice))
            found[each.agent_id, voice] = one if before is None else merged(before, one)
    return found


def days(moment: datetime) -> float:
    """A moment as days, the unit of time of trends."""
    return (moment - EPOCH).total_seconds() / 86400
