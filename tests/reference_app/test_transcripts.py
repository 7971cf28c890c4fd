"""Made-up calls, their transcripts as streams of sentences, what VADER makes of them, and figures that merge."""

from __future__ import annotations

import json
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.aggregates import Moments, all_merged, merged
from jobs.sentiment_scores import compound, score_call
from jobs.tables import Call
from jobs.transcripts import LONGEST_SENTENCE, UnreadableTranscript, sentences, spoken
from rqmem.testing import assert_stays_under
from seeds import phrases
from seeds.transcripts import (
    AGENTS,
    DAYS,
    FIRST_DAY,
    LONG_FACTOR,
    MEDIAN_CHARACTERS,
    SLOTS,
    drift,
    facts,
    first_long,
    transcripts,
)

SPEECH = st.text(st.sampled_from("ab é日.!?…:\n\r\t ") | st.characters(codec="utf-8"), max_size=120)
TURNS = st.lists(st.tuples(st.sampled_from(["agent", "user"]), SPEECH), max_size=8)


def cut(text: str, sizes: list[int]) -> list[str]:
    """In pieces of these sizes, and a rest."""
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


# Sentences


@given(SPEECH, st.integers(1, 12), st.lists(st.integers(0, 40)))
def test_where_a_text_is_cut_makes_no_difference(speech: str, times: int, sizes: list[int]) -> None:
    text = speech * times
    assert list(sentences(cut(text, sizes))) == list(sentences([text]))


@given(SPEECH)
def test_sentences_hold_every_character_that_is_no_blank(text: str) -> None:
    found = [sentence for sentence, _ in sentences([text])]
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(found)


@given(TURNS, st.lists(st.integers(0, 30)))
def test_json_cut_anywhere_gives_each_turn_with_its_speaker(turns: list[tuple[str, str]], sizes: list[int]) -> None:
    text = json.dumps([{"role": role, "content": words} for role, words in turns], ensure_ascii=False)
    speakers = {"agent": "agent", "user": "customer"}
    expected = [(speakers[role], sentence) for role, words in turns for sentence, _ in sentences([words])]
    assert list(spoken("json", cut(text, sizes))) == expected


def test_lines_name_their_speaker_and_go_on_without() -> None:
    assert list(spoken("text", ["\ufeffAgent: Hi.\n"])) == [("agent", "Hi.")]
    text = "Ringing.\nAgent: Hi. User: is no label here!\r\n\nand more\nUSER:\n  Yes?  customer: no\n"
    assert list(spoken("text", [text, "Customer: $2.50 is it.\n"])) == [
        (None, "Ringing."),
        ("agent", "Hi."),
        ("agent", "User: is no label here!"),
        ("agent", "and more"),
        ("customer", "Yes?"),
        ("customer", "customer: no"),
        ("customer", "$2.50 is it."),
    ]


@pytest.mark.parametrize("text", ["word " * 10_000, "x" * 50_000, "\n" * 50_000 + "Agent: hi", "x" * 501 + "."])
def test_no_sentence_is_longer_than_what_can_be_scored(text: str) -> None:
    found = [sentence for sentence, _ in sentences(cut(text, [7, 990]))]
    assert max(map(len, found)) <= LONGEST_SENTENCE
    assert "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[{"role": "agent", "content": "a"}', "broken JSON: parse error: premature EOF"),
        ('[{"role": "agent" "content": "a"}]', "broken JSON: parse error: after key and value"),
        ("[nonsense]", "broken JSON: lexical error: invalid string"),
        ('{"transcript": []}', "its JSON is no list of turns"),
        ("null", "its JSON is no list of turns"),
        ("[1]", "turn 1 of its JSON is no object with a role"),
        ('[{"content": "a"}]', "turn 1 of its JSON is no object with a role"),
        ('[{"role": "agent", "content": "a"}, {"role": "user"}]', "turn 2 of its JSON has no content"),
        ('[{"role": "other", "content": 1}]', "turn 1 of its JSON has no content"),
        ('[{"role": "agent", "content": {"role": "agent", "content": "a"}}]', "turn 1 of its JSON has no content"),
        ('[[{"role": "agent", "content": "a"}]]', "turn 1 of its JSON is no object with a role"),
        # The first two crashed the process and raised an error of decimals, the third one of Unicode.
        (f'[{{"role": "agent", "content": "a", "n": {"1" * 4301}}}]', "broken JSON: parse error: integer overflow"),
        ('[{"role": "agent", "content": "a", "n": 1e9999999999999999999}]', "broken JSON: parse error: numeric"),
        ('[{"role": "agent", "content": "\\udc00"}]', "broken JSON: 'utf-8' codec can't decode"),
    ],
)
def test_what_is_no_transcript_says_why(text: str, why: str) -> None:
    with pytest.raises(UnreadableTranscript) as caught:
        list(spoken("json", [text]))
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


def test_of_a_turn_role_and_content_count_however_deep_the_rest_lies() -> None:
    """Built as a whole, this took 250 MB."""
    deep = '{"content": [' * 5_000 + '"no"' + "]}" * 5_000
    turn = f'{{"words": {deep}, "content": "no", "role": "user", "role": "agent", "content": "Yes."}}'
    with assert_stays_under(20):
        found = list(spoken("json", cut(f"[{turn}, {turn}]", [70, 900])))
    assert found == [("agent", "Yes.")] * 2


@pytest.mark.parametrize(
    "text", ["", " \n", "[]", "\ufeff [ ] ", '[{"role": "tool_call_invocation", "name": "look_up"}]']
)
def test_nothing_said_is_no_error(text: str) -> None:
    assert list(spoken("json", cut(text, [1, 1]))) == []


# Figures

POINTS = st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 4000)), min_size=1, max_size=40)


@settings(max_examples=40)
@given(st.lists(POINTS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_figures_merged_in_any_order_are_those_of_all_points(groups: list[list[tuple[float, float]]], rng) -> None:
    parts = [all_merged(Moments.of(value, time) for value, time in group) for group in groups]
    rng.shuffle(parts)
    together = all_merged(part for part in parts if part is not None)
    assert together is not None
    values, times = zip(*(point for group in groups for point in group), strict=True)
    assert together.count == len(values)
    assert together.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
    if len(values) > 1:
        assert together.variance == pytest.approx(statistics.variance(values), rel=1e-9, abs=1e-12)
    if statistics.pvariance(times) > 1e-6:
        slope = statistics.linear_regression(times, values).slope
        assert together.slope == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    known = all_merged(Moments.of(1e9 + value, 1e9 + value) for value in (4, 7, 13, 16))
    assert known is not None
    assert (known.variance, known.slope) == (pytest.approx(30), pytest.approx(1))


def test_one_measurement_has_no_variance_and_one_moment_no_trend() -> None:
    one = Moments.of(0.5, 20.0)
    assert (one.variance, one.slope) == (None, None)
    two = merged(one, Moments.of(0.25, 20.0))
    assert (two.mean, two.variance, two.slope) == (0.375, 0.03125, None)
    assert all_merged([]) is None


# Made-up calls


def test_lengths_are_a_few_kilobytes_and_a_few_are_thousands_of_times_longer() -> None:
    lengths = sorted(len(row["transcript"]) for row in transcripts(7, 400))
    assert MEDIAN_CHARACTERS * 0.8 < lengths[200] < MEDIAN_CHARACTERS * 1.6
    assert 0 in lengths
    [long] = transcripts(7, 1, start=first_long(7))
    assert len(long["transcript"]) >= LONG_FACTOR * MEDIAN_CHARACTERS
    assert facts(7, first_long(7) + 5000).characters >= LONG_FACTOR * MEDIAN_CHARACTERS


def test_scores_agree_with_the_tone_of_the_call_by_a_tenth() -> None:
    """In at least 97 of 100 calls: what the customer says scores above 0.1, below -0.1, or between the two."""
    agreed: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for index, row in enumerate(transcripts(21, 300)):
        tone = facts(21, index).tone
        found = score_call(Call(id=index, **row), [row["transcript"]])
        calls[tone] += 1
        if tone == "silent":
            agreed[tone] += found.outcome == "empty"
        else:
            score = found.scores["customer"]
            agreed[tone] += ("positive" if score >= 0.1 else "negative" if score <= -0.1 else "neutral") == tone
    assert calls["neutral"] > calls["positive"] > calls["negative"] > calls["silent"] > 0
    for tone, number in calls.items():
        assert agreed[tone] >= 0.97 * number, (tone, agreed, calls)


def test_phrases_score_as_their_tone() -> None:
    slots = {name: values[0] for name, values in SLOTS.items()} | {"digits": "4711"}
    for of in (phrases.AGENT, phrases.CUSTOMER):
        for tone, texts in of.items():
            for text in texts:
                score = compound(text.format_map(slots))
                assert (score > 0.2, score < 0, score == 0)[("positive", "negative", "neutral").index(tone)], text
    neutral = [*phrases.OPENINGS, *phrases.CLOSINGS, *(value for values in SLOTS.values() for value in values)]
    assert [text for text in neutral if compound(text.format_map(slots))] == []


def test_agents_who_learn_have_more_positive_calls_later() -> None:
    half = FIRST_DAY.timestamp() + 86400 * DAYS / 2
    shares: dict[tuple[int, bool], list[bool]] = {}
    for index in range(12_000):
        known = facts(3, index)
        assert 1 <= known.agent_id <= AGENTS
        late = known.started_at.timestamp() > half
        shares.setdefault((drift(known.agent_id), late), []).append(known.tone == "positive")
    rise = {way: statistics.fmean(shares[way, True]) - statistics.fmean(shares[way, False]) for way in (-1, 0, 1)}
    assert rise[1] > 0.08 and rise[-1] < -0.08 and abs(rise[0]) < 0.05
