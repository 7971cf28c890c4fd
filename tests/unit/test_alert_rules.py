"""What is worth an alert, and when one is sent: the pure parts, over any input hypothesis finds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem import events
from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.errors import ConfigError
from rqmem.policy import alert_pace
from rqmem.policy.alert_rules import (
    RULES,
    USAGE_HYSTERESIS,
    WINDOW_SECONDS,
    Condition,
    JobReading,
    Levels,
    judge,
    of_event,
    rise,
)

WHOSE = {"job": "jobs.Export", "job_id": "j1", "queue": "q", "worker": "w"}
LIMIT_MB = 1e6  # far away, where growth is the question


def timeline(
    usages: list[float], thresholds: Config | None = None, *, limit_mb: float = LIMIT_MB, seconds: float = 1.0
) -> list[tuple[int, str, str]]:
    """(which reading, ``raised`` or ``resolved``, rule) of a job that used so much, a reading a second."""
    levels, told = Levels(), []
    for number, usage in enumerate(usages):
        reading = JobReading(1e9 + seconds * number, "jobs.Export", "j1", "q", 1e9, usage, limit_mb)
        raised, resolved, levels = judge(reading, levels, thresholds or Config())
        told += [(number, "raised", each.rule) for each in raised]
        told += [(number, "resolved", each.rule) for each in resolved]
    return told


# Events


BREACH = events.Breach(
    **WHOSE, used_mb=271.3, limit_mb=256, peak_mb=274, layer="watch", processes=2, operation="customers 1200-1250"
)


@pytest.mark.parametrize(
    ("event", "rule", "text"),
    [
        (
            BREACH,
            "ceiling-exceeded",
            "used 271.3 MB of 256 MB at 'customers 1200-1250' (peak 274.0 MB, by watch, 2 processes)",
        ),
        (events.Split(**WHOSE, children=12), "job-split", "split into 12 child jobs"),
        (
            events.WorkerLost(**WHOSE, lost_worker="w2"),
            "worker-lost",
            "worker w2 is lost; this job was running on it",
        ),
        (
            events.WorkerFull(job="", job_id="", queue="", worker="w", used_mb=530.5, limit_mb=512, action="restart"),
            "worker-full",
            "worker w itself uses 530.5 MB of 512 MB",
        ),
        (
            events.GaveUp(**WHOSE, cause="breach", reason="item 7 does not\nfit alone", resumes=3),
            "resume-budget-spent",
            "gave up after a memory breach and 3 resumes: item 7 does not fit alone",
        ),
        (
            events.Collection(**WHOSE, operation="", freed_mb=0, memory_mb=9, collections=101),
            "many-collections",
            "garbage was collected more than 100 times in a run",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, events.Event) else "",
)
def test_events_that_are_worth_an_alert(event: events.Event, rule: str, text: str) -> None:
    assert of_event(event, Config()) == Condition(rule, event.job, event.job_id, event.queue, text)


def test_other_events_are_not_alerts_themselves_included() -> None:
    for event in (
        events.RunEnded(**WHOSE, outcome="ok", initial_memory_mb=1, peak_memory_mb=1, final_memory_mb=1,
                        memory_limit_mb=1, freed_mb=0, collections=999, chunks=0, duration_seconds=1),
        events.AlertRaised(**WHOSE, rule="job-split", text=""),
        events.AlertResolved(**WHOSE, rule="memory-usage", text=""),
        events.UsageWarning(**WHOSE, operation="", current_memory_mb=9, memory_limit_mb=10, threshold_percentage=80),
    ):  # fmt: skip
        assert of_event(event, Config()) is None


@given(st.integers(1, 1000), st.integers(0, 2000))
def test_collections_are_told_once_in_a_run_and_only_above_their_number(limit: int, collections: int) -> None:
    thresholds = Config(alert_collections=limit)
    told = [
        of_event(events.Collection(**WHOSE, operation="", freed_mb=0, memory_mb=9, collections=number), thresholds)
        for number in range(1, collections + 1)
    ]
    assert sum(each is not None for each in told) == int(collections > limit)


def test_thresholds_are_those_of_the_configuration() -> None:
    environ = {
        "MEMORY_WARNING_THRESHOLD": "0.9",
        "RQMEM_ALERT_GROWTH": "20",
        "RQMEM_ALERT_COLLECTIONS": "7",
    }
    config = load(environ).config
    assert (config.warning_threshold, config.alert_growth_mb_per_minute, config.alert_collections) == (0.9, 20, 7)
    with pytest.raises(ConfigError, match="RQMEM_ALERT_COLLECTIONS='0'"):
        load({"RQMEM_ALERT_COLLECTIONS": "0"})


# Usage


@given(st.lists(st.floats(0, 1.2), max_size=80), st.floats(0.06, 1))
def test_usage_raises_above_its_threshold_ends_below_and_takes_turns(fractions: list[float], threshold: float) -> None:
    thresholds = Config(warning_threshold=threshold, alert_growth_mb_per_minute=1e9)
    told = timeline([256 * each for each in fractions], thresholds, limit_mb=256)
    assert [what for _, what, _ in told] == ["raised", "resolved"] * (len(told) // 2) + ["raised"] * (len(told) % 2)
    for number, what, rule in told:
        assert rule == "memory-usage"
        if what == "raised":
            assert fractions[number] > threshold - 1e-9
        else:
            assert fractions[number] <= threshold - USAGE_HYSTERESIS + 1e-9
    first = next((number for number, each in enumerate(fractions) if 256 * each / 256 > threshold), None)
    assert (told[0][0] if told else None) == first


@given(st.lists(st.floats(0.751, 1.2), min_size=1, max_size=80))
def test_usage_that_hovers_at_the_threshold_does_not_flap(fractions: list[float]) -> None:
    told = timeline([256 * each for each in fractions], Config(alert_growth_mb_per_minute=1e9), limit_mb=256)
    assert len(told) <= 1


def test_a_job_that_ends_ends_what_it_raised_and_the_next_begins_anew() -> None:
    first = JobReading(100, "jobs.A", "a", "q", 90, 250, 256)
    raised, resolved, levels = judge(first, Levels(), Config())
    assert [(each.rule, each.job_id, each.text) for each in raised] == [
        ("memory-usage", "a", "uses 250 MB of 256 MB (98 %)")
    ]
    assert resolved == []
    raised, resolved, levels = judge(replace(first, at=101, job="jobs.B", job_id="b", started_at=101), levels, Config())
    assert [(each.rule, each.job, each.job_id) for each in raised] == [("memory-usage", "jobs.B", "b")]
    assert [(each.job_id, each.text) for each in resolved] == [("a", "its job has ended")]
    again = replace(first, at=102, job="jobs.B", job_id="b", started_at=102)  # resumed: another execution
    raised, resolved, levels = judge(again, levels, Config())
    assert (len(raised), len(resolved)) == (1, 1)
    raised, resolved, levels = judge(None, levels, Config())
    assert ([], "b", Levels()) == (raised, resolved[0].job_id, levels)
    assert judge(None, levels, Config()) == ([], [], Levels())


def test_a_job_without_a_ceiling_yet_is_above_none() -> None:
    assert timeline([10.0, 20.0], limit_mb=0) == []


# Growth


@given(st.floats(51, 1000), st.integers(62, 200), st.floats(0, 500))
def test_steady_growth_above_the_rate_is_told_once_as_soon_as_it_is_true(rate: float, count: int, start: float) -> None:
    told = timeline([start + rate / 60 * number for number in range(count)])
    assert [(what, rule) for _, what, rule in told] == [("raised", "memory-growth")]
    assert 50 / (rate / 60) <= told[0][0] + 1e-6 <= 50 / (rate / 60) + 1 + 1e-3


@given(st.floats(-1000, 49.9), st.integers(2, 200))
def test_steady_growth_below_it_never_is(rate: float, seconds: int) -> None:
    assert timeline([1000 + rate / 60 * number for number in range(seconds)]) == []


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=150), st.floats(0, 500))
def test_noise_is_no_growth(noise: list[float], level: float) -> None:
    assert timeline([level + each for each in noise]) == []


@given(st.integers(0, 150), st.floats(51, 1e5), st.integers(1, 150))
def test_a_jump_is_growth_for_a_minute(before: int, height: float, after: int) -> None:
    told = timeline([50.0] * (before + 1) + [50 + height] * after)
    assert told[0] == (before + 1, "raised", "memory-growth")
    assert [number for number, what, _ in told if what == "resolved"] == [before + 61] * (after > 60)


@given(st.floats(51, 1e5), st.floats(0.01, 0.9))
def test_a_jump_before_the_first_reading_is_seen_too(height: float, seconds: float) -> None:
    reading = JobReading(100 + seconds, "jobs.A", "a", "q", 100, 20 + height, LIMIT_MB, initial_mb=20)
    [found], _, levels = judge(reading, Levels(), Config())
    assert found.text.startswith(f"grew by {height:.0f} MB within 1 s, to ")
    assert len(levels.window) == 2


@given(st.lists(st.floats(0, 300), min_size=1, max_size=200), st.floats(0, 400))
def test_what_a_type_is_known_to_need_is_no_news(usages: list[float], known_mb: float) -> None:
    levels = Levels()
    for number, usage in enumerate(usages):
        reading = JobReading(number, "jobs.A", "a", "q", 0, usage, LIMIT_MB, 0, known_mb)
        raised, _, levels = judge(reading, levels, Config())
        assert not raised or max(usages[: number + 1]) > known_mb + 50


@given(st.integers(1, 30), st.integers(1, 30), st.floats(51, 300), st.integers(10, 40))
def test_a_job_that_works_in_waves_is_told_of_once(up: int, down: int, height: float, waves: int) -> None:
    """It ends a minute later: by then this is what the job uses."""
    told = timeline(([20.0 + height] * up + [20.0] * down) * waves)
    assert [what for _, what, _ in told] in ([], ["raised"], ["raised", "resolved"])


@given(st.floats(60, 1000), st.integers(61, 90))
def test_growth_that_stops_ends_within_the_window(rate: float, seconds: int) -> None:
    grown = [rate / 60 * number for number in range(seconds)]
    told = timeline(grown + [grown[-1]] * int(WINDOW_SECONDS + 2))
    assert [what for _, what, _ in told] == ["raised", "resolved"]


@given(st.lists(st.floats(0, 300), max_size=200), st.floats(0.2, 5))
def test_growth_is_raised_and_resolved_in_turns(usages: list[float], seconds: float) -> None:
    told = [each for each in timeline(usages, seconds=seconds) if each[2] == "memory-growth"]
    assert all(one[1] != other[1] for one, other in itertools.pairwise(told))


@given(st.lists(st.floats(0, 300), max_size=300), st.floats(0.5, 5))
def test_what_is_remembered_is_bounded(usages: list[float], seconds: float) -> None:
    levels = Levels()
    for number, usage in enumerate(usages):
        reading = JobReading(seconds * number, "jobs.Export", "j1", "q", 0, usage, LIMIT_MB)
        levels = judge(reading, levels, Config())[2]
        assert len(levels.window) <= WINDOW_SECONDS / seconds + 1.01


def test_a_clock_that_is_set_back_begins_a_new_window() -> None:
    levels = Levels()
    for at, usage in [(100.0, 0.0), (110.0, 10.0), (50.0, 500.0)]:
        levels = judge(JobReading(at, "jobs.Export", "j1", "q", 0, usage, LIMIT_MB), levels, Config())[2]
    assert levels.window == ((50.0, 500.0),)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 300)), min_size=1, max_size=30))
def test_the_largest_rise_is_the_largest_of_all_pairs(points: list[tuple[float, float]]) -> None:
    every = [later[1] - earlier[1] for earlier, later in itertools.combinations(points, 2)]
    assert rise(points).mb == max([0.0, *every])


def test_names_of_rules_do_not_change() -> None:
    assert sorted(RULES) == [
        "ceiling-exceeded", "job-evicted", "job-split", "many-collections", "memory-growth", "memory-leak",
        "memory-usage", "pool-paused", "resume-budget-spent", "worker-full", "worker-lost",
    ]  # fmt: skip
    assert {name for name, rule in RULES.items() if rule.can_end} == {"memory-usage", "memory-growth"}


# When they are sent


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 20)), max_size=60))
def test_a_minute_has_so_many_messages_and_nothing_waits_for_ever(arrivals: list[tuple[int, float]]) -> None:
    now, waiting, arrived, sent_at, delivered = 0.0, 0, 0, [], 0
    for count, pause in [*arrivals, *[(0, 61.0)] * 2]:
        now += pause
        waiting, arrived = waiting + count, arrived + count
        while number := alert_pace.to_send(waiting, sent_at[-alert_pace.MESSAGES_A_MINUTE :], now):
            assert alert_pace.may_send_at(sent_at[-alert_pace.MESSAGES_A_MINUTE :], now) == now
            sent_at.append(now)
            waiting, delivered = waiting - number, delivered + number
        if waiting:
            due = alert_pace.may_send_at(sent_at[-alert_pace.MESSAGES_A_MINUTE :], now)
            assert now < due <= now + 60
            assert alert_pace.to_send(waiting, sent_at[-alert_pace.MESSAGES_A_MINUTE :], due + 1e-6) > 0
    assert (waiting, delivered) == (0, arrived)
    for begin in sent_at:
        assert sum(begin <= at < begin + 60 for at in sent_at) <= alert_pace.MESSAGES_A_MINUTE


def test_the_last_message_of_a_minute_holds_all_the_rest() -> None:
    sent_at: list[float] = []
    sizes, waiting = [], 100
    while size := alert_pace.to_send(waiting, sent_at, now=5.0):
        sent_at.append(5.0)
        sizes.append(size)
        waiting -= size
    assert sizes == [1] * 19 + [81]


def test_six_tries_within_five_minutes() -> None:
    pauses = [alert_pace.pause_after(tries) for tries in range(1, 8)]
    assert pauses == [5, 15, 30, 75, 175, None, None]
    assert sum(pause or 0 for pause in pauses) == 300
