"""The parts of ``rqmem monitor`` that need no Redis: drawing, pressure, crossings, steps, statistics, report, view."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.cli.monitor import threshold
from rqmem.errors import ConfigError
from rqmem.live import plain, recording_text, saving
from rqmem.live.crossings import Crossings
from rqmem.live.record import Record
from rqmem.live.recording import MonitorOptions, Recording, as_fields, to_json
from rqmem.live.screen import PlainDisplay
from rqmem.live.steps import MonitorStep, MonitorSteps, WorkerStep
from rqmem.live.system import Pressure, System, parse_pressure
from rqmem.live.view import Frame, view
from rqmem.observe import statistics
from rqmem.observe.model import Queue, Snapshot, Worker
from rqmem.observe.statistics import tally_of
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history.history_records import Live, LiveJob, Run, Tally
from rqmem.store.history.samples import Sample
from rqmem.text import bar, columns, cut, cut_middle, cut_names, fit, line, sparkline, without_moods
from tests.conftest import ROOT

JOB = "jobs.campaigns.ProcessRetellAICampaignJob"
START = 1_700_000_000.0
SYSTEM = System("web-1", 8000.0, 6000.0, 0.0, 0.0, Pressure(1.5, 0.5, 0.25, 0.0))

# Drawing


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 60), st.booleans())
def test_a_bar_is_as_wide_as_asked_and_full_or_empty_only_when_it_is(
    fraction: float, width: int, ascii_only: bool
) -> None:
    drawn = bar(fraction, width, ascii_only=ascii_only)
    assert len(drawn) == width
    assert not ascii_only or drawn.isascii()
    if width:
        assert (drawn in (" " * width, "." * width)) == (not fraction > 0)
        assert width == 1 or (drawn in ("█" * width, "#" * width)) == (fraction >= 1)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 40))
def test_a_longer_bar_is_more(less: float, more: float, width: int) -> None:
    order = " ▏▎▍▌▋▊▉█"
    lengths = [sum(order.index(each) for each in bar(fraction, width)) for fraction in sorted((less, more))]
    assert lengths[0] <= lengths[1]


def test_bars() -> None:
    assert bar(0.5, 8) == "████    "
    assert bar(0.3, 10) == "███       "
    assert bar(0.999, 4, ascii_only=True) == "###."
    assert bar(0.001, 4, ascii_only=True) == "#..."


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6))), st.integers(0, 50), st.booleans())
def test_a_sparkline_is_as_wide_as_asked_and_loses_no_peak(
    values: list[float | None], width: int, ascii_only: bool
) -> None:
    drawn = sparkline(values, width, ascii_only=ascii_only)
    assert len(drawn) == width
    highest = max((value for value in values if value is not None), default=0)
    if highest > 0 and width:
        assert ("#" if ascii_only else "█") in drawn


def test_sparklines() -> None:
    assert sparkline([0, 25, 50, 75, 100], 5, top=100) == "▁▃▅▇█"
    assert sparkline([1, None, 8], 6, top=8) == "   ▂ █"
    assert sparkline([1, 9, 1, 1, 2, 2], 3, top=8) == "█▂▃", "each column its highest; above the top is the top"
    assert sparkline([0, 0], 2) == "▁▁"
    assert sparkline([], 3) == "   "


# Lines


@given(st.text(), st.integers(0, 30))
def test_what_is_cut_fits(words: str, width: int) -> None:
    assert len(cut(words, width)) <= width
    assert len(cut_middle(words, width)) <= width
    assert len(without_moods(fit(line(words, ("more", "bad"), words), width))) <= width


def test_names_stay_apart_when_they_are_shortened() -> None:
    names = [f"web-host-{number:02d}-4711-abcd" for number in range(20)]
    assert cut_names(names, 30) == names
    assert cut_names(names, 15)[3] == "…03-4711-abcd"
    assert cut_names(names, 6)[3] == "…03…"
    assert cut_names(["web-21", "web-29"], 3) == ["…21", "…29"]
    assert cut_names(["a-single-long-name"], 8) == ["a-s…name"]


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8, unique=True), st.integers(8, 30))
def test_shortened_names_fit(names: list[str], width: int) -> None:
    assert all(len(each) <= width for each in cut_names(names, width))


def test_what_users_code_names_cannot_move_the_cursor() -> None:
    assert without_moods(line("a\x1b[2Jb\nc")) == r"a\x1b[2Jb\nc"


def test_cells_are_aligned() -> None:
    assert columns([["a", "1"], ["bcd", "22"]]) == ["a     1", "bcd  22"]
    assert columns([]) == []


# The machine

PSI = """some avg10=1.25 avg60=0.50 avg300=0.10 total=123456
full avg10=0.75 avg60=0.25 avg300=0.05 total=65432
"""


def test_pressure_is_read_as_the_kernel_writes_it() -> None:
    assert parse_pressure(PSI) == Pressure(1.25, 0.5, 0.75, 0.25)


@pytest.mark.parametrize("garbled", ["", "some\n", PSI.splitlines()[0], PSI.replace("1.25", "much"), "\n\n"])
def test_pressure_that_is_none_is_none(garbled: str) -> None:
    assert parse_pressure(garbled) is None


# Crossings


def job(usage_mb: float, *, peak_mb: float = 0.0, job_id: str = "j1", started_at: float = START) -> LiveJob:
    return LiveJob(JOB, job_id, "q", started_at, usage_mb, max(usage_mb, peak_mb), 100.0, "chunk 3", 150)


def test_a_crossing_begins_when_usage_rises_and_ends_when_it_falls() -> None:
    crossings = Crossings(80)
    begun = [crossings.add("w", job(usage), START + at) for at, usage in enumerate([70, 80, 81, 95, 85, 60, 60, 90])]
    assert [each is not None for each in begun] == [False, False, True, False, False, False, False, True]
    first, second = crossings.kept
    assert (first.at, first.until, first.usage_mb, first.over) == (START + 2, START + 4, 95, True)
    assert (second.at, second.over, second.usage_percentage) == (START + 7, False, 90.0)
    assert crossings.count == crossings.by_worker["w"] == crossings.by_job[JOB] == 2


def test_the_next_job_is_another_crossing() -> None:
    crossings = Crossings(80)
    for at, job_id in enumerate(["a", "a", "b"]):
        crossings.add("w", job(90, job_id=job_id), START + at)
    assert [(each.job_id, each.over) for each in crossings.kept] == [("a", True), ("b", False)]


def test_a_peak_between_two_looks_counts_once() -> None:
    crossings = Crossings(80)
    assert crossings.add("w", job(50, peak_mb=92), START) is not None
    assert crossings.add("w", job(50, peak_mb=92), START + 1) is None
    assert crossings.add("w", job(50, peak_mb=92, started_at=START + 2), START + 2) is not None, "another execution"
    assert [each.usage_mb for each in crossings.kept] == [92, 92]
    assert all(each.over for each in crossings.kept)


def test_a_peak_from_before_the_monitor_does_not_count() -> None:
    crossings = Crossings(80)
    crossings.pass_over("w", job(50, peak_mb=92))
    assert crossings.add("w", job(50, peak_mb=92), START) is None
    assert crossings.add("w", job(85, peak_mb=92), START + 1) is not None


def test_a_worker_that_is_gone_is_above_nothing() -> None:
    crossings = Crossings(80)
    crossings.add("w", job(90), START)
    crossings.add("w", None, START + 1)
    assert [each.over for each in crossings.kept] == [True]


@given(st.lists(st.tuples(st.floats(0, 120), st.sampled_from("abc")), max_size=60))
def test_crossings_are_as_many_as_rises(seen: list[tuple[float, str]]) -> None:
    crossings, rises, before = Crossings(80), 0, None
    for at, (usage, job_id) in enumerate(seen):
        crossings.add("w", dataclasses.replace(job(usage, job_id=job_id), peak_mb=0), START + at)
        above = job_id if usage > 80 else None
        rises += above is not None and above != before
        before = above
    assert crossings.count == len(crossings.kept) == rises


# Steps


def moment(usage_mb: float, limit_mb: float = 100.0, worker_mb: float = 30.0) -> WorkerStep:
    return WorkerStep("w", usage_mb, limit_mb, worker_mb, JOB if limit_mb else "", "j1" if limit_mb else "")


def test_a_step_holds_the_highest_within_it() -> None:
    steps = MonitorSteps(START, 10)
    for at, usage in enumerate([20.0, 90.0, 40.0]):
        worker = {"w": moment(usage, worker_mb=50 - at)}
        fuller = dataclasses.replace(SYSTEM, available_mb=6000.0 - usage)
        steps.add(START + at, MonitorStep(START + at, fuller, worker, (Queue("q", at, 0, 0, 0),), ended=1))
    [step] = steps.all
    assert step.at == START
    assert (step.workers["w"].usage_mb, step.workers["w"].worker_mb) == (90.0, 50.0)
    assert (step.system.used_mb, step.queues[0].queued, step.ended) == (2090.0, 2, 3)


def test_a_job_is_fuller_than_none() -> None:
    steps = MonitorSteps(START, 10)
    for at, worker in enumerate([moment(0.0, limit_mb=0.0), moment(1.0), moment(0.0, limit_mb=0.0)]):
        steps.add(START + at, MonitorStep(START + at, SYSTEM, {"w": worker}))
    assert steps.all[0].workers["w"].job == JOB


def test_a_time_without_looks_is_a_gap() -> None:
    steps = MonitorSteps(START, 1)
    for at in (0, 1, 5):
        steps.add(START + at, MonitorStep(START + at, SYSTEM, {}))
    assert [step.at - START for step in steps.all] == [0, 1, 5]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.integers(1, 20))
def test_steps_stay_few_and_lose_no_peak_and_no_count(usages: list[float], most: int) -> None:
    steps = MonitorSteps(START, 1, most)
    for at, usage in enumerate(usages):
        steps.add(START + at, MonitorStep(START + at, SYSTEM, {"w": moment(usage)}, ended=1))
    found = steps.all
    assert len(found) <= most
    assert max(step.workers["w"].usage_mb for step in found) == max(usages)
    assert sum(step.ended for step in found) == len(usages)
    begins = [step.at for step in found]
    assert begins == sorted(set(begins))
    assert all((begin - START) % steps.step_seconds == 0 for begin in begins)


# Statistics


def run(peak_mb: float, ended_at: float = START + 5, **more: Any) -> Run:
    values: dict[str, Any] = {
        "job": JOB, "job_id": "j1", "queue": "q", "worker": "w", "ended_at": ended_at, "outcome": "ok", "seconds": 2.0,
        "initial_mb": 10.0, "peak_mb": peak_mb, "limit_mb": 100.0,
    }  # fmt: skip
    return Run(**{**values, **more})


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], fraction: float) -> None:
    ordered = sorted(values)
    found = statistics.percentile(ordered, fraction)
    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-6
    assert sum(value < found for value in values) < fraction * len(values) + 1e-6


def test_percentiles() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [statistics.percentile(hundred, fraction) for fraction in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert statistics.percentile([], 0.5) is None


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=80), st.lists(st.floats(1, 1000), max_size=80))
def test_what_was_added_to_a_tally_is_the_tally_of_what_was_added(added: list[float], before: list[float]) -> None:
    old, new = [run(peak) for peak in before], [run(peak, items=3, chunks=1) for peak in added]
    grown = statistics.grown(tally_of(old), tally_of(old + new))
    expected = tally_of(new)
    for each in dataclasses.fields(Tally):
        assert getattr(grown, each.name) == pytest.approx(getattr(expected, each.name), abs=0.01), each.name


def test_a_journal_that_was_cleared_meanwhile_counts_from_nothing() -> None:
    assert statistics.grown(tally_of([run(50)] * 9), tally_of([run(60)] * 2)).runs == 2


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=100))
def test_peaks_by_tallies_are_at_most_5_percent_too_high(peaks: list[float]) -> None:
    exact, counted = (
        statistics.peaks_of([run(peak) for peak in peaks]),
        statistics.peaks_in(tally_of([*map(run, peaks)]).peaks),
    )
    for name, value in vars(exact).items():
        assert value - 0.11 <= vars(counted)[name] <= 1.05 * value + 0.11, name


def job_statistics(runs: list[Run], added: Tally, **more: Any) -> statistics.JobStatistics:
    return statistics.job_statistics(
        JOB, runs, added, since=START, threshold_percentage=80, alerts=1, crossings=2, **more
    )


def test_runs_are_told_exactly_where_all_are_there() -> None:
    runs = [
        run(50, items=100, chunks=2, collections=2, freed_mb=30.0),
        run(90, outcome="MemoryLimitExceeded", layer="watch", resumed=True, counted=False),
        run(70, outcome="ValueError"),
        run(10, children=3),
        run(99, ended_at=START - 1),
    ]
    found = job_statistics(runs, tally_of(runs[:4]))
    assert found.source == "runs"
    counted = found.tally
    assert (counted.runs, counted.failed, counted.resumed, counted.splits, counted.alerts) == (4, 1, 1, 1, 1)
    assert counted.breaches == {"watch": 1}
    assert (found.peaks.p50_mb, found.peaks.highest_mb, found.runs_above) == (50, 90, 1)
    assert (counted.mb_per_1000_items, counted.freed_mb_per_collection) == (500, 15)
    assert (counted.jobs, counted.splitting_rate, counted.alerts_per_job) == (3, 1 / 3, 1 / 3)


def test_short_runs_of_a_lease_that_are_kept_as_one_count_each() -> None:
    runs = [run(50, times=98), run(90, items=10), run(95), run(99, ended_at=START - 1)]
    found = job_statistics(runs, tally_of(runs[:3]))
    assert (found.source, found.tally.runs, found.tally.jobs, found.tally.seconds) == ("runs", 100, 100, 200)
    assert (found.peaks.p90_mb, found.peaks.p99_mb, found.peaks.highest_mb, found.runs_above) == (50, 90, 95, 2)
    assert job_statistics([run(90, times=3)], tally_of([run(90, times=3)])).runs_above == 3


def test_tallies_tell_of_runs_that_the_list_no_longer_has() -> None:
    every = [run(random.Random(number).uniform(10, 95)) for number in range(500)]
    found = job_statistics(every[-100:], tally_of(every))
    assert (found.source, found.tally.runs, found.runs_above) == ("tallies", 500, None)
    assert found.peaks.highest_mb == pytest.approx(95, rel=0.06)


def test_of_some_queues_only_runs_can_tell() -> None:
    every = [run(50, queue="q" if number % 2 else "other") for number in range(500)]
    found = job_statistics(every[-100:], tally_of(every), queues=("q",))
    assert (found.source, found.tally.runs) == ("last runs", 50)
    with_all = job_statistics([*every[-100:], run(1, ended_at=START - 9)], tally_of(every[-100:]), queues=("q",))
    assert (with_all.source, with_all.tally.runs) == ("runs", 50)


# Record


def live(worker: str, of: LiveJob | None, at: float, jobs: int = 0) -> Live:
    return Live(worker, "web-1", 7, at, START - 60, 40.0, 512.0, 100.0, 8, "watcher", jobs, 0, 0, ["q"], of)


def a_worker(name: str, of: LiveJob | None, at: float, jobs: int = 0, samples: tuple[Sample, ...] = ()) -> Worker:
    state = "busy" if of else "idle"
    return Worker(name, "rqmem", state, ("q",), "web-1", jobs=jobs, live=live(name, of, at, jobs), samples=samples)


def an_alert(number: int, state: Any = "raised") -> Alert:
    return Alert(f"{number}-0", START + number, "usage", state, JOB, "j1", "q", "w", f"alert {number}")


def a_record(*workers: Worker, **more: Any) -> Record:
    return Record(Snapshot(START, workers=workers, **more), SYSTEM, step_seconds=10, threshold_percentage=80)


def test_what_ended_is_counted_from_the_first_look_on() -> None:
    record = a_record(a_worker("w", None, START, jobs=100))
    record.add(Snapshot(START + 1, workers=(a_worker("w", None, START + 1, jobs=103),)), SYSTEM)
    record.add(Snapshot(START + 2, workers=(a_worker("w", None, START + 2, jobs=1),)), SYSTEM)  # began anew
    record.add(
        Snapshot(START + 3, workers=(a_worker("w", None, START + 3, jobs=1), a_worker("new", None, START + 3, 2))),
        SYSTEM,
    )
    assert {each.worker: each.ended for each in record.workers.totals} == {"w": 4, "new": 2}
    assert record.steps.all[0].ended == 6
    assert record.ended_per_minute == 6 / 3 * 60


def test_the_rate_is_of_the_last_minute() -> None:
    record = a_record(a_worker("w", None, START))
    assert record.ended_per_minute is None
    for at in range(1, 200):
        record.add(Snapshot(START + at, workers=(a_worker("w", None, START + at, jobs=min(at, 100)),)), SYSTEM)
    assert record.ended_per_minute == 0
    for at in range(200, 230):
        record.add(Snapshot(START + at, workers=(a_worker("w", None, START + at, jobs=at - 99),)), SYSTEM)
    assert record.ended_per_minute == 30


def test_alerts_from_before_are_shown_and_not_counted() -> None:
    record = a_record(alerts=(an_alert(1),), last_alert="1-0")
    assert (record.alerts_raised, record.news.alerts, [each.id for each in record.recent]) == (0, (), ["1-0"])
    assert record.before.alert == "1-0"
    news = record.add(Snapshot(START + 1, alerts=(an_alert(2), an_alert(3, "resolved")), last_alert="3-0"), SYSTEM)
    assert (record.alerts_raised, len(news.alerts), record.before.alert) == (1, 2, "3-0")
    assert [each.id for each in record.recent] == ["1-0", "2-0", "3-0"]


def test_redis_away_is_counted_and_a_gap() -> None:
    record = a_record(a_worker("w", None, START))
    record.away(START + 10, SYSTEM)
    record.away(START + 12, SYSTEM)
    assert record.away_seconds(START + 15) == 5
    record.add(Snapshot(START + 32, workers=(a_worker("w", None, START + 32),)), SYSTEM)
    assert (record.away_since, record.away_seconds(START + 40)) == (None, 22)
    assert [step.at - START for step in record.steps.all] == [0, 30]


def test_histories_begin_with_the_journals_samples_and_go_on_with_workers_words() -> None:
    samples = tuple(Sample(int(START) - 9 + at, 10.0 + at, 100.0, 40.0) for at in range(9))
    record = a_record(a_worker("w", job(50), START, samples=samples))
    assert record.before.sampled == {"w": START}
    record.add(Snapshot(START + 400, workers=(a_worker("w", job(60), START + 400),)), SYSTEM)
    points = record.workers.histories.points
    assert [usage_mb for usage_mb, _ in points["w"].values()] == [60], "five minutes are kept"
    record.add(Snapshot(START + 401), SYSTEM)
    assert points == {}
    assert record.workers.totals[0].fullest is not None


# Recording


def a_report(**more: Any) -> Recording:
    runs = [run(50, items=100, chunks=2, collections=2, freed_mb=30.0), run(90, layer="watch", outcome="x")]
    record = a_record(a_worker("w", job(85), START), a_worker("idle", None, START))
    record.add(
        Snapshot(START + 12, workers=(a_worker("w", job(95), START + 12, 1),), alerts=(an_alert(3),), last_alert="3-0"),
        SYSTEM,
    )
    values: dict[str, Any] = {
        "setting": MonitorOptions("redis://localhost:6379/0", 10, 80.0, (), 0.8),
        "record": record,
        "jobs": [job_statistics(runs, tally_of(runs))],
        "jobs_read_at": START + 60,
        "ended_at": START + 60,
        "ended_by": "duration",
    }
    return Recording(**{**values, **more})


def test_every_key_of_the_report_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "json.md").read_text().partition("<!-- table of documents")[0]
    words = set(re.findall(r"\w+", page))

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    breaches_by_layer = {"watch"}
    assert keys(as_fields(a_report())) - breaches_by_layer - words == set()


def test_the_json_is_the_fields_a_line_a_sample() -> None:
    written = to_json(a_report())
    fields = json.loads(written)
    assert fields == json.loads(json.dumps(as_fields(a_report())))
    assert (fields["version"], fields["started_at"], fields["run_seconds"]) == (2, "2023-11-14T22:13:20.000Z", 60.0)
    assert [sample["at"] for sample in fields["samples"]] == ["2023-11-14T22:13:20.000Z", "2023-11-14T22:13:30.000Z"]
    busy = next(each for each in fields["samples"][0]["workers"] if each["name"] == "w")
    assert (busy["usage_percentage"], busy["operation"], busy["items_done"]) == (85.0, "chunk 3", 150)
    idle = next(each for each in fields["samples"][0]["workers"] if each["name"] == "idle")
    assert (idle["job_type"], idle["usage_percentage"]) == (None, None)
    totals = fields["totals"]
    assert (totals["peak_per_1000_items_mb"], totals["freed_per_collection_mb"]) == (500.0, 15.0)
    assert (totals["splitting_rate"], totals["alerts_per_job"]) == (0.0, 0.5)
    assert fields["threshold_crossings"] == fields["workers"][1]["crossings"] == 1
    assert sum(line.startswith('    {"at"') for line in written.splitlines()) == 4  # samples, alert, crossing


def test_the_text_has_the_same_figures() -> None:
    written = recording_text.to_text(a_report())
    for words in (
        "rqmem monitor on redis://localhost:6379/0, 1 min 0 s from 2023-11-14T22:13:20Z",
        f"{JOB}: 2 runs, 1 failed, 1 breach (by watch), 2 crossings, 1 alert",
        "peak 90 MB; half stay within 50, 90 % within 90, 99 % 90",
        "100 items in 2 chunks, 30 MB freed in 2 collections",
        "500.0 peak MB per 1,000 items, 15.0 MB freed per collection, 0.00 splits per job, 0.50 alerts per job",
        "1 crossing of 80 % of the ceiling",
        "1 alert raised",
        "usage: alert 3",
        "w  95 of 100 MB (95 %), itself 40 MB",
    ):
        assert words in written


def test_a_summary_says_what_is_left_out_and_what_is_not_known() -> None:
    setting = MonitorOptions("x", 10, 80, ("mail",), 0.8)
    report = a_report(jobs_read_at=START + 40, jobs=[], complete=False, setting=setting)
    report.record.add(Snapshot(START + 30, alerts=[an_alert(number) for number in range(8)]), SYSTEM)
    report.record.away(START + 40, SYSTEM)
    lines = recording_text.summary(report)
    for words in (
        "only of queues mail", "Redis was away for 20 s", "what jobs did is known until 2023-11-14T22:14:00Z only",
        "  and 4 before", "not over yet", "no job ended on a worker of rqmem", "in all: nothing to tell",
    ):  # fmt: skip
        assert words in "\n".join(lines)


# The file


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = saving.output(str(tmp_path / "report.json"))
    assert list(tmp_path.iterdir()) == [], "the check leaves nothing"
    file.save("one")
    with file.file.open() as reader:
        file.save("two")
        assert reader.read() == "one", "who reads it reads a whole one"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert file.file.read_text() == "two"


def test_a_file_that_could_not_be_written_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saving.output(str(tmp_path / "report.txt"))
    file.save("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.save("after")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report", "must end in .json or .txt"),
        ("report.csv", "must end in .json or .txt"),
        ("nowhere/report.json", "there is no directory"),
        ("file/report.json", "there is no directory"),
        ("directory.json", "that is a directory"),
        ("/proc/report.json", "no file can be made in /proc"),
    ],
)
def test_a_file_that_cannot_be_is_found_at_once(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory.json").mkdir()
    with pytest.raises(ConfigError, match=words) as raised:
        saving.output(str(tmp_path / name))
    assert "\n" not in str(raised.value)


# Options


@pytest.mark.parametrize(("given", "meant"), [("80", 80.0), ("80%", 80.0), (" 99.5 ", 99.5), ("100", 100.0)])
def test_thresholds(given: str, meant: float) -> None:
    assert threshold(given, "--threshold") == meant


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0.8", "--threshold 0.8: give a percentage, for 0.8 write 80"),
        ("1", "--threshold 1: give a percentage, for 1 write 100"),
        ("0.05", "for 0.05 write 5"),
        ("0", "above 1 and up to 100"),
        ("-80", "above 1 and up to 100"),
        ("120", "above 1 and up to 100"),
        ("nan", "above 1 and up to 100"),
        ("inf", "above 1 and up to 100"),
        ("high", "above 1 and up to 100"),
    ],
)
def test_thresholds_that_are_none(given: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        threshold(given, "--threshold")
    assert words in str(raised.value)


# The view


def a_full_record(workers: int = 30) -> Record:
    seen = [
        a_worker(f"web-host-{each:02d}-4711-abcd", job(each * 3.0, job_id=f"j{each}"), START) for each in range(workers)
    ]
    seen.append(a_worker("idle-one", None, START))
    seen.append(Worker("stock-one", "rq", "busy", ("q",), "web-2", jobs=5))
    seen.append(Worker("lost-one", "silent", "busy", ("q",), "web-2", jobs=5))
    queues = tuple(Queue(f"queue-{each}", 1000 * each, each, 0, 2) for each in range(12))
    opened = tuple(Open("growth", JOB, START - 60, "w", f"grows {each}") for each in range(3))
    return a_record(*seen, queues=queues, alerts=tuple(an_alert(each) for each in range(8)), open_alerts=opened)


@given(st.integers(20, 240), st.integers(8, 80), st.booleans(), st.integers(0, 40))
def test_the_view_fits_any_terminal(width: int, height: int, ascii_only: bool, workers: int) -> None:
    record = a_full_record(workers)
    frame = Frame(START, "redis://x", START + 60, width, height, "", ascii_only)
    lines = [without_moods(each) for each in view(record, frame)]
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert not any(each.startswith("memory ") and "█" in each for each in lines if ascii_only)


def shown(record: Record, width: int, height: int, **more: Any) -> str:
    frame = Frame(START, "redis://x", START + 60, width, height, **more)
    return "\n".join(without_moods(each) for each in view(record, frame))


def test_what_does_not_fit_is_said_and_what_is_fullest_is_shown() -> None:
    screen = shown(a_full_record(), 80, 24)
    assert "! …29-4711-abcd  █████▏  87/100 MB  87 %" in screen
    assert "  …26-4711-abcd  ████▋   78/100 MB  78 %" in screen
    assert "idle-one" not in screen
    assert "  and 24 more workers, at 60 % of their ceilings at most\n12 queues\n" in screen
    assert "  and 9 more\nalerts, 3 open\n" in screen
    assert "3 over 80 %" in screen


def test_a_wide_screen_has_it_all() -> None:
    screen = shown(a_full_record(3), 160, 60)
    for words in (
        "idle-one", "not watched: a stock rq worker", "not heard of: it hangs, or is dead", "itself ",
        "ProcessRetellAICampaignJob (j2) at chunk 3, 150 items", "pressure 1.5 % some, 0.2 % full",
        "11,000 queued", "open since", "usage: alert 7", "2.0 of 7.8 GB (25 %) on web-1", "0 s of 1 min 0 s",
    ):  # fmt: skip
        assert words in screen
    assert "more workers" not in screen


def test_redis_away_and_a_notice_stand_above_all() -> None:
    record = a_full_record(1)
    record.away(START - 5, SYSTEM)
    lines = shown(record, 100, 40, notice="report.json cannot be written now").splitlines()
    assert lines[1] == "report.json cannot be written now"
    assert lines[2].startswith("Redis does not answer since 5 s")


def test_a_kernel_that_tells_no_pressure_is_said() -> None:
    record = a_record()
    record.system = dataclasses.replace(SYSTEM, pressure=None)
    assert "pressure: this kernel tells none" in shown(record, 120, 30)
    assert "no workers" in shown(record, 120, 30)
    assert "'rqmem worker' starts one" in shown(record, 120, 30)


def test_a_worker_that_says_nothing_new_for_long_is_marked() -> None:
    record = a_record(a_worker("w", job(50), START))
    for at in range(1, 8):
        record.add(Snapshot(START + at, workers=(a_worker("w", job(50), START),)), SYSTEM)
    assert "(7 s ago)" in shown(record, 120, 30)


# Lines in a pipe


def test_lines_tell_what_is_new_at_once_and_how_it_stands_by_interval() -> None:
    written: list[str] = []
    record = a_record(a_worker("w", job(50), START))
    display = PlainDisplay(10, written.append)
    display.show(record, record.news, START)
    assert any("worker w: 50 of 100 MB (50 %) " in each for each in written)
    written.clear()
    news = record.add(
        Snapshot(START + 1, workers=(a_worker("w", job(90), START + 1),), alerts=(an_alert(1),), last_alert="1-0"),
        SYSTEM,
    )
    display.show(record, news, START + 1)
    assert [each.split(" ", 1)[1].split(":")[0] for each in written] == ["ABOVE 80 %", "alert raised"]
    written.clear()
    record.away(START + 2, SYSTEM)
    for at in (2, 3, 12):
        display.show(record, dataclasses.replace(news, alerts=(), crossings=()), START + at)
    assert [each.split(" ", 1)[1] for each in written] == ["Redis does not answer: waiting for it"]
    written.clear()
    display.show(
        record, record.add(Snapshot(START + 13, workers=(a_worker("w", None, START + 13),)), SYSTEM), START + 13
    )
    assert written[0].endswith("Redis answers again")
    assert any("worker w: idle" in each for each in written)


def test_each_line_is_one_line() -> None:
    nasty = dataclasses.replace(job(50), operation="a\nb\x1b[2J")
    record = a_record(a_worker("w", nasty, START))
    assert all(each.isprintable() for each in plain.block(record))
