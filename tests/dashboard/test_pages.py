"""What pages show, without a browser."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from redis import Redis

from rqmem.dashboard import create_app, drawing, filters
from rqmem.dashboard.csv_table import to_text
from rqmem.dashboard.hub import MOST_VIEWERS, Hub
from rqmem.dashboard.type_views import bars_of
from rqmem.observe.model import Worker
from rqmem.observe.worker_histories import Histories
from rqmem.policy.histogram import bucket
from rqmem.store import keys
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import LiveJob
from rqmem.store.history.samples import RINGS, Sample
from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from rqmem.testing import wait_until
from tests import children_jobs
from tests.conftest import WorkOff
from tests.dashboard.conftest import JOB, TYPE
from tests.journal_filling import a_live, a_run, register, remember

Urls = Callable[[Flask], list[tuple[str, str, set[str]]]]


def test_an_empty_redis_says_what_to_do(app: Flask, connection: Redis) -> None:
    page = app.test_client().get("/").text
    assert "Nothing has run on this Redis yet." in page
    assert "rqmem worker --memory 256" in page
    assert "No worker runs on this Redis." in app.test_client().get("/workers").text


def test_pages_say_when_redis_is_away_and_try_again(urls: Urls) -> None:
    app = create_app("redis://127.0.0.1:1")
    for endpoint, url, _ in urls(app):
        if endpoint.startswith("pages.") and endpoint != "pages.live":
            answer = app.test_client().get(url)
            assert answer.status_code == 503, endpoint
            assert "Redis does not answer" in answer.text
            assert 'data-retry="2"' in answer.text
    look = json.loads(app.test_client().get("/api/v1/live").text)
    assert "away" in look


def test_an_unknown_address_is_named_and_leads_on(app: Flask, connection: Redis) -> None:
    page = app.test_client().get("/nowhere").text
    assert "There is no page &#39;/nowhere&#39; here." in page
    assert '<a class="button" href="/">Overview</a>' in page


def test_answers_on_an_empty_redis_are_whole_sentences(app: Flask, connection: Redis) -> None:
    texts = {}
    for path in ("/queues", "/workers", "/alerts"):
        [answer] = re.findall(r'<p class="answer"[^>]*>(.*?)</p>', app.test_client().get(path).text, re.DOTALL)
        texts[path] = " ".join(re.sub(r"<[^>]+>", "", answer).split())
    assert texts == {
        "/queues": "Nothing waits. No workers.",
        "/workers": "There is no worker.",
        "/alerts": "Nothing is open.",
    }


def test_the_overview_counts_jobs_that_failed(app: Flask, filled: Redis) -> None:
    assert '<a href="/jobs?state=failed">1 failed</a>' in app.test_client().get("/").text


def test_an_unknown_job_and_type_are_404_with_a_hint(app: Flask, filled: Redis) -> None:
    answer = app.test_client().get("/jobs/ffffffff")
    assert answer.status_code == 404 and "is it the right --url?</p>" in answer.text
    assert app.test_client().get("/types/no.such.Type").status_code == 404
    answer = app.test_client().get("/api/v1/no/such/thing")
    assert answer.status_code == 404
    assert set(answer.json or {}) == {"error", "hint"}


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [(JOB, f"/jobs/{JOB}"), (JOB[:8], f"/jobs/{JOB}"), ("ExportJob", f"/types/{TYPE}"), ("export", f"/types/{TYPE}")],
)
def test_the_search_box_finds_ids_their_beginnings_and_types(
    app: Flask, connection: Redis, asked: str, leads_to: str
) -> None:
    from tests.journal_filling import fill

    fill(connection, TYPE, JOB)
    assert app.test_client().get("/search", query_string={"q": asked}).headers["Location"] == leads_to


def test_arguments_can_be_hidden(connection: Redis, filled: Redis, urls: Urls) -> None:
    shown = create_app(connection=connection).test_client().get(f"/jobs/{JOB}").text
    assert "call(" in shown
    app = create_app(connection=connection, hide_arguments=True)
    for endpoint, url, methods in urls(app):
        if "GET" in methods and endpoint not in ("static", "live.events"):
            assert "call(" not in app.test_client().get(url).text, endpoint


def test_a_job_page_has_its_breach_and_its_story(app: Flask, filled: Redis) -> None:
    page = app.test_client().get(f"/jobs/{JOB}").text
    assert "used 271.3 MB of 256 MB" in page
    assert "started on ada, ceiling 256 MB" in page


def listed(page: str) -> str:
    """The table of children."""
    return page.partition('id="h-children"')[2].partition("</section>")[0]


def test_children_that_failed_are_named_first(
    app: Flask, connection: Redis, work_off: WorkOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.set("go on", 1)
    job = children_jobs.Meta.enqueue(connection=connection)
    work_off("jobs")
    page = app.test_client().get(f"/jobs/{job.id}").text
    shown = re.findall(r">child (\d)</a>.*?<span class=\"pill [a-z]*\">(\w+)</span>", listed(page), re.DOTALL)
    assert shown == [("1", "failed"), ("0", "ok"), ("2", "ok"), ("3", "ok")]
    assert "ValueError: broken" in page
    monkeypatch.setattr("rqmem.dashboard.child_rows.MOST_CHILDREN", 3)
    page = app.test_client().get(f"/jobs/{job.id}").text
    assert "child 1</a>" not in listed(page)
    assert "1 failed" in page


def test_a_spreadsheet_gets_texts_and_no_formulas() -> None:
    assert to_text(["a", "b"], [("=HYPERLINK(1)", 1.23456), ("@x", None)]) == "a,b\r\n'=HYPERLINK(1),1.235\r\n'@x,\r\n"


def test_each_list_leads_to_its_table_as_csv(app: Flask, filled: Redis) -> None:
    client = app.test_client()
    for page, more in (("types", ""), ("jobs", "?state=queued"), ("workers", ""), ("alerts", "")):
        [link] = re.findall(r'href="([^"]+\.csv[^"]*)"', client.get(f"/{page}{more}").text)
        answer = client.get(link.replace("&amp;", "&"))
        assert answer.headers["Content-Disposition"] == f'attachment; filename="rqmem-{page}.csv"'
    [row] = csv.DictReader(io.StringIO(client.get("/api/v1/types.csv").text))
    assert (row["job_type"], row["runs"]) == (TYPE, "32")


def test_a_first_visit_to_live_is_small(app: Flask, connection: Redis) -> None:
    """With eight workers and their 15 minutes."""
    now = time.time()
    for number in range(8):
        job = LiveJob(TYPE, JOB, "q", now - 40, 100.0 + number, 180.0, 256.0, items_done=1250)
        register(connection, f"web-{number}", "q", state="busy", live=a_live(f"web-{number}", job))
        with connection.pipeline() as pipeline:
            for second in range(890):
                at = now - 890 + second
                samples = [Sample(ring.begin(at), 20.0 + second * 7 % 230, 256.0, 30.0) for ring in RINGS]
                history_writer.write_samples(pipeline, f"web-{number}", samples, at)
            pipeline.execute()
    client, took = app.test_client(), 0
    page = client.get("/live")
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(files) == 7
    for path in ("/live", *files, "/api/v1/history", "/api/v1/live"):
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200
        took += len(answer.data)
    assert took < 120_000
    history = client.get("/api/v1/history", headers={"Accept-Encoding": "gzip"})
    assert json.loads(gzip.decompress(history.data)).keys() == {"begin", "workers"}
    assert "Content-Encoding" not in client.get(files[0]).headers


# The hub


def test_two_viewers_share_each_look(connection: Redis, filled: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr("rqmem.dashboard.hub.ASKED_SECONDS", 1.5)
    hub = Hub(connection, "here")
    real = hub._look
    monkeypatch.setattr(hub, "_look", lambda number: (looks.append(number), real(number))[1])
    first = hub.newest()
    assert hub.newest() is first
    second = hub.after(first.number)
    assert second is not None
    assert hub.after(first.number) is second
    assert len(looks) == 2
    wait_until(lambda: not hub._looking, 60)  # nobody asks any more
    seen = len(looks)
    time.sleep(1.5)
    assert len(looks) == seen
    assert hub.newest().number == seen + 1  # somebody asks again


def test_samples_between_two_reports_are_seen(connection: Redis, filled: Redis) -> None:
    hub = Hub(connection, "here")
    assert hub.newest().number == 1
    peaks = [Sample(ring.begin(time.time() - 2), 251.0, 256.0, 30.0) for ring in RINGS]
    with connection.pipeline() as pipeline:
        history_writer.write_samples(pipeline, "web-1-w1", peaks, time.time())
        pipeline.execute()

    def usage_seen() -> list[int | None]:
        seen: list[int | None] = hub.history()["workers"]["web-1-w1"]["usage_mb"]
        return seen

    wait_until(lambda: 251 in usage_seen(), 60)


def test_a_viewer_who_has_the_look_gets_304(app: Flask, filled: Redis) -> None:
    client = app.test_client()
    answer = client.get("/api/v1/live")
    look = json.loads(answer.text)
    assert [each["name"] for each in look["workers"]] == ["stock", "web-1-w1", "web-1-w2"]
    assert look["samples"]["web-1-w1"][-1][1:] == [179.2, 256.0]
    while True:  # the next look may come in between
        again = client.get("/api/v1/live", headers={"If-None-Match": answer.headers["ETag"]})
        if again.status_code == 304:
            break
        answer = again


def test_the_49th_viewer_is_told_to_ask(filled: Redis) -> None:
    from rqmem.dashboard.app import build
    from rqmem.dashboard.options import Options
    from rqmem.dashboard.state import EXTENSION

    app = build(filled, "here", Options(own_server=True))
    streams = [app.test_client().get("/api/v1/events") for _ in range(MOST_VIEWERS)]
    assert next(iter(streams[0].response)).decode().startswith("data: {")  # type: ignore[union-attr]
    assert app.test_client().get("/api/v1/events").status_code == 503
    for each in streams:
        each.close()
    assert app.extensions[EXTENSION].hub.seats._value == MOST_VIEWERS


def test_a_mounted_dashboard_sends_no_events(app: Flask) -> None:
    assert app.test_client().get("/api/v1/events").status_code == 404
    assert "data-events" not in app.test_client().get("/live").text


# Values


def test_a_history_is_compact() -> None:
    histories = Histories(5)
    live = a_live("w")
    worker = Worker("w", "rqmem", "idle", ())
    histories.add(worker, [Sample(at, 10.4 * at, 256.0, 30.0) for at in range(1, 8)])
    histories.add(worker, [Sample(7, 90.0, 128.0, 30.0)])
    assert histories.compact(8.2) == {
        "begin": 4,
        "workers": {"w": {"usage_mb": [42, 52, 62, 90, None], "ceiling_mb": [(0, 256.0), (3, 128.0), (4, 0.0)]}},
    }
    assert histories.newest(8.0, 15)["w"][-1] == (7, 90.0, 128.0)
    assert histories.last("w") == 7
    histories.add(Worker("idle", "rqmem", "idle", (), live=live))
    histories.forget_all_but(["idle"])
    assert list(histories.newest(live.at, 15)) == ["idle"]


def test_bars_have_every_run_once() -> None:
    peaks: dict[int, float] = {}
    for size in range(20, 400):
        peaks[bucket(size)] = peaks.get(bucket(size), 0) + 1
    bars = bars_of(peaks)
    assert 10 < len(bars) <= 32
    assert sum(count for _, _, count in bars) == 380
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bars))
    assert bars_of({}) == []


@pytest.mark.parametrize(("share", "colour"), [(None, "accent"), (0.79, "accent"), (0.8, "warning"), (0.95, "bad")])
def test_a_bar_is_coloured_near_the_ceiling_only(share: float | None, colour: str) -> None:
    assert f'class="{colour}"' in drawing.bar(share)


def test_texts_in_pictures_are_escaped() -> None:
    evil = '"><script>x</script>'
    drawn = drawing.histogram([(1, 2, 3)], [("ceiling", 2.0, evil)], "MB", evil)
    assert "<script>" not in drawn


def test_no_line_of_a_histogram_is_drawn_over_a_name() -> None:
    drawn = drawing.histogram([(1, 2, 3)], [("ceiling", 2.0, "one"), ("advised", 2.1, "two")], "MB", "peaks")
    assert drawn.index(">one<") > drawn.index('class="advised"')


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("no worker is running", "No worker is running."),
        ("shop.Export leaks 3 MB a run.", "shop.Export leaks 3 MB a run."),
        ("send_mail uses 92 %", "send_mail uses 92 %."),
        ("Redis: is away", "Redis: is away."),
        ("", "."),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_a_name_is_there(words: str, shown: str) -> None:
    assert filters.sentence(words) == shown


@pytest.mark.parametrize("most", [0.0, 1.0, 2.0, 7.0, 12.0, 150.0, 1267.0, 10.0**9])
def test_an_axis_of_counts_has_few_whole_numbers_up_to_the_highest(most: float) -> None:
    steps = drawing.whole_steps(most)
    assert steps[0] == 0
    assert steps[-1] >= max(1, most)
    assert 2 <= len(steps) <= 5


@pytest.mark.parametrize(
    ("low", "high"), [(20.0, 600.0), (23.0, 170.0), (0.1, 9000.0), (0.05, 10.0**7), (300.0, 310.0)]
)
def test_an_axis_of_sizes_has_few_numbers_within_it(low: float, high: float) -> None:
    steps = drawing.log_steps(low, high)
    assert 1 <= len(steps) <= 8
    assert all(low <= each <= high for each in steps)
    assert steps == sorted(steps)


def test_a_histogram_of_one_size_is_drawn() -> None:
    assert 'text-anchor="end">1</text>' in drawing.histogram([(0.0, 0.1, 1.0)], [], "MB", "one")


def test_sizes_and_times() -> None:
    shown = [filters.mb(each) for each in (None, 0.04, 12.34, 99.94, 99.96, 1250.4, float("nan"))]
    assert shown == [filters.UNKNOWN, "0", "12.3", "99.9", "100", "1,250", filters.UNKNOWN]
    assert (
        filters.time_tag(0) == '<time datetime="1970-01-01T00:00:00Z" data-form="clock">1970-01-01 00:00:00 UTC</time>'
    )


@pytest.mark.parametrize(
    ("now", "before", "answer"),
    [
        ((10, 1), (10, 4), "Better: 10.0 % of the runs breached their ceiling, 40.0 % in the time before."),
        ((10, 4), (10, 1), "Worse: 40.0 % of the runs breached"),
        ((20, 2), (10, 1), "Neither: 10.0 % of the runs breached"),
        ((10, 0), (10, 0), "Neither: 0.0 % of the runs breached"),
        ((10, 1), (0, 0), "There is nothing to compare with: no job ended in the time before."),
    ],
)
def test_trends_answer_whether_it_is_better_or_worse(
    app: Flask, connection: Redis, now: tuple[int, int], before: tuple[int, int], answer: str
) -> None:
    at = time.time()
    history_writer.version_is_ours(connection)
    for (runs, breached), ended_at in ((now, at), (before, at - 30 * 3600)):
        with connection.pipeline() as pipeline:
            run = replace(a_run(TYPE, "j", ended_at), layer="")
            ended = [replace(run, layer="watch")] * breached + [run] * (runs - breached)
            history_writer.write_runs(pipeline, ended, {}, ended_at)
            pipeline.execute()
        connection.persist(keys.tally(TYPE, "h", int(ended_at // HOUR_SECONDS)))
    connection.hset(keys.totals(TYPE), "since", at - 60 * 3600)
    html = app.test_client().get("/trends?window=24h").text
    if now[1] and before[0]:
        assert f'{now[1]}<span class="sub">{100 * now[1] / now[0]:.0f} %</span>' in html
    page = re.sub(r"<[^>]+>", "", html)
    assert answer in re.sub(r"\s+", " ", page)


def write_days(connection: Redis, job_type: str, breaches_by_day: dict[int, tuple[int, int]]) -> None:
    """Days ago -> runs, and how many of them breached."""
    at = time.time()
    history_writer.version_is_ours(connection)
    for days, (runs, breached) in breaches_by_day.items():
        ended_at = at - days * DAY_SECONDS
        run = replace(a_run(job_type, "j", ended_at), layer="")
        with connection.pipeline() as pipeline:
            ended = [replace(run, layer="watch")] * breached + [run] * (runs - breached)
            history_writer.write_runs(pipeline, ended, {}, ended_at)
            pipeline.execute()
        connection.persist(keys.tally(job_type, "d", int(ended_at // DAY_SECONDS)))
    connection.hset(keys.totals(job_type), "since", at - 40 * DAY_SECONDS)


def test_a_month_of_trends_compares_its_halves(app: Flask, connection: Redis) -> None:
    """The journal keeps a month, so it never has the month before."""
    write_days(connection, TYPE, {25: (10, 1), 20: (10, 1), 5: (10, 4), 1: (10, 4)})
    write_days(connection, "shop.Better", {25: (10, 9), 2: (10, 1)})
    page = app.test_client().get("/trends?window=30d").text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert "Better: 30.0 % of the runs breached their ceiling, 36.7 % in the time before." in text
    assert "Last 16 days: 30 runs, 9 failed" in text or "Last 16 days: 30 runs" in text
    assert "against the 16 days before; what got worse first" in text
    rows = re.findall(r'<th scope="row"><a href="/types/([^"]+)"', page)
    assert rows == [TYPE, "shop.Better"]
    chart = json.loads(re.findall(r"data-chart='([^']+)'", page)[0])
    assert len(chart["y"]) == 5, "the chart has the whole month"


def test_trends_do_not_compare_a_month_that_the_journal_has_half_of(app: Flask, connection: Redis) -> None:
    write_days(connection, TYPE, {5: (10, 4), 1: (10, 4)})
    connection.hset(keys.totals(TYPE), "since", time.time() - 6 * DAY_SECONDS)
    page = app.test_client().get("/trends?window=30d").text
    assert "It is too early to say" in page
    assert "Last 30 days: 20 runs" in page


def test_trends_show_some_job_types_and_all_on_request(app: Flask, connection: Redis) -> None:
    for number in range(30):
        remember(connection, a_run(f"shop.Type{number}", f"j{number}", time.time()))
    client = app.test_client()
    assert client.get("/trends").text.count('<th scope="row">') == 25
    assert 'href="/trends?all=1">All 30 job types' in client.get("/trends").text
    assert client.get("/trends?window=7d&all=1").text.count('<th scope="row">') == 30


def test_trends_mark_when_the_workers_that_run_now_were_started(app: Flask, connection: Redis) -> None:
    """A change of figures at such a time may come from new code."""
    remember(connection, a_run(TYPE, "j", time.time()))
    write_another_hour(connection)
    hour = time.time() // HOUR_SECONDS * HOUR_SECONDS
    for number, started_at in enumerate((hour - 3 * HOUR_SECONDS + 5, hour - 3 * HOUR_SECONDS + 900, hour - 90000)):
        register(connection, f"w{number}", "q", live=replace(a_live(f"w{number}"), started_at=started_at))
    page = app.test_client().get("/trends?window=24h").text
    assert re.search(r"were started: 2 at <time", page), "the third began before"
    assert f'"marks": [{hour - 3 * HOUR_SECONDS}]' in app.test_client().get("/trends?window=24h").text


@pytest.mark.parametrize("version", ["v8", "<b>8</b>"])
def test_trends_and_the_type_mark_where_the_code_changed(app: Flask, connection: Redis, version: str) -> None:
    history_writer.version_is_ours(connection)
    for days, code_version in ((6, "v7"), (3, version), (1, version)):
        ended_at = time.time() - days * DAY_SECONDS
        for job_type in (TYPE, "shop.Other"):
            with connection.pipeline() as pipeline:
                run = replace(a_run(job_type, "j", ended_at), code_version=code_version)
                history_writer.write_runs(pipeline, [run], {}, ended_at)
                pipeline.execute()
            connection.persist(keys.tally(job_type, "d", int(ended_at // DAY_SECONDS)))
    changed_at = int((time.time() - 3 * DAY_SECONDS) // DAY_SECONDS * DAY_SECONDS)
    page = app.test_client().get("/trends?window=7d").text
    assert f'"marks": [{changed_at}]' in page
    assert f'The code changed: <b class="mono">{filters.Markup.escape(version)}</b> from <time' in page
    assert "and 1 more)" in page
    page = app.test_client().get(f"/types/{TYPE}").text
    assert f'"marks": [{changed_at + DAY_SECONDS / 2}]' in page
    assert f'Its code changed: <b class="mono">{filters.Markup.escape(version)}</b>' in page
    assert '<td class="mono">v7</td>' in page


def write_another_hour(connection: Redis) -> None:
    """So that there is a chart."""
    at = time.time() - 2 * HOUR_SECONDS
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [a_run(TYPE, "j", at)], {}, at)
        pipeline.execute()
