"""Pages with very much data: what they read, and what they show of it."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from flask import Flask
from redis import Redis

from rqmem import events
from rqmem.dashboard.drawing import small_histogram
from rqmem.dashboard.overview_views import mixed
from rqmem.observe.problems import Finding
from rqmem.policy.histogram import bucket
from rqmem.store import keys
from rqmem.store.history import history_writer
from tests.journal_filling import a_run, register, remember


def crowd(connection: Redis, types: int) -> None:
    """That many job types, each with a leak and a run that was stopped."""
    now, names = time.time(), [f"shop.exports.Export{number}Job" for number in range(types)]
    runs = [replace(a_run(name, f"of-{name}", now), outcome="MemoryLimitExceeded", layer="watch") for name in names]
    leaks = [
        events.LeakFound(job=name, job_id="j", queue="q", worker="ada", mb_per_run=1.5, runs=40, grew=[])
        for name in names
    ]
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, runs, {}, now, leaks)
        pipeline.execute()


def calls(connection: Redis, command: str) -> int:
    """How often the server has executed it."""
    stats: Any = connection.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_the_overview_reads_all_alerts_once_for_all_types_that_leak(app: Flask, connection: Redis) -> None:
    client, read = app.test_client(), []
    for types in (2, 30):
        crowd(connection, types)
        before = calls(connection, "xrevrange")
        page = client.get("/").text
        read.append(calls(connection, "xrevrange") - before)
    assert "Export29Job" in page
    assert read == [1, 1]


def test_the_jobs_that_run_are_read_once_for_all_that_have_split(app: Flask, connection: Redis) -> None:
    register(connection, "w", *(f"q{number}" for number in range(5)))
    client, read = app.test_client(), []
    for parents in (1, 20):
        for number in range(parents):
            connection.sadd(keys.SPLITS, f"parent-{number}")
            connection.hset(keys.run(f"parent-{number}"), mapping={"job": "shop.Export", "split_queue": "q0"})
        before = calls(connection, "zrange")
        assert f">{parents} job" in client.get("/splitting").text
        read.append(calls(connection, "zrange") - before)
    assert read[0] == read[1] > 0


def test_of_very_many_queues_those_with_jobs_are_shown(app: Flask, connection: Redis) -> None:
    register(connection, "w", *(f"idle-{number}" for number in range(130)), "zebra")
    assert "/queues/zebra/pause" not in app.test_client().get("/queues").text
    connection.rpush("rq:queue:zebra", "waits")
    assert "/queues/zebra/pause" in app.test_client().get("/queues").text


def test_the_types_are_filtered_by_name_and_outcome_on_the_page_and_in_the_api(app: Flask, connection: Redis) -> None:
    now, client = time.time(), app.test_client()
    crowd(connection, 3)
    remember(connection, a_run("shop.Mail", "m", now), a_run("shop.exports.Quiet", "q", now))
    every = {"shop.Mail", "shop.exports.Quiet", *(f"shop.exports.Export{number}Job" for number in range(3))}
    for query, wanted in {
        "": every,
        "type=EXPORTS.": every - {"shop.Mail"},
        "type=export1": {"shop.exports.Export1Job"},
        "outcome=breached": every - {"shop.Mail", "shop.exports.Quiet"},
        "outcome=leaks&type=2": {"shop.exports.Export2Job"},
        "outcome=split": set(),
    }.items():
        told = client.get(f"/api/v1/types?{query}").get_json()["job_types"]
        assert {each["job_type"] for each in told} == wanted, query
        page = client.get(f"/types?sort=name&{query}").text
        assert set(re.findall(r'<th scope="row"><a href="/types/([^"]+)"', page)) == wanted, query
        links = re.findall(r'href="(/(?:types|api/v1/types\.csv)\?[^"]+)"', page)
        kept = [part for part in query.split("&") if part]
        assert sum(not all(part in link for part in kept) for link in links) == bool(kept), links  # only "Clear"
        assert wanted or "No job type fits the filter" in page
    assert client.get("/types?outcome=nonsense").status_code == 200
    assert client.get("/api/v1/types?outcome=nonsense").status_code == 400


def test_a_page_of_very_many_types_shows_some_and_all_on_request(app: Flask, connection: Redis) -> None:
    crowd(connection, 130)
    client = app.test_client()
    page = client.get("/types?window=7d").text
    assert page.count('<th scope="row">') == 100
    assert "130 job types ran in the last 7 days" in page
    [more] = re.findall(r'href="([^"]*all=1)"', page)
    assert client.get(more.replace("&amp;", "&")).text.count('<th scope="row">') == 130


def test_a_small_histogram_has_each_run_in_one_bar_and_the_ceiling_above_its_bars() -> None:
    peaks = {bucket(mb): 1.0 for mb in (30, 31, 60, 110)}
    picture = small_histogram(peaks, 256.0)
    [bars] = re.findall(r'class="accent" d="([^"]+)"', picture)
    places = [float(each) for each in re.findall(r"M([\d.]+) 26v-", bars)]
    [ceiling] = re.findall(r'class="ceiling" d="M([\d.]+) ', picture)
    assert places == sorted(places) and places[0] == 0
    assert max(places) < float(ceiling) <= 100
    assert "ceiling" not in small_histogram(peaks, None)
    assert small_histogram({}, 256.0) == ""


def test_pages_of_very_many_rows_show_some_and_all_on_request(app: Flask, connection: Redis) -> None:
    crowd(connection, 130)
    for number in range(130):
        connection.sadd("rq:queues", f"rq:queue:q{number:03}")
        register(connection, f"w{number}", "q000")
    connection.rpush("rq:queue:q129", "x")
    client = app.test_client()
    for path in ("/leaks", "/queues", "/workers"):
        page = client.get(path).text
        assert page.count('<th scope="row">') == 100, path
        [more] = re.findall(r'href="([^"]*all=1)">All 130<', page)
        assert client.get(more).text.count('<th scope="row">') == 130, path
    assert re.search(r'<th scope="row">q129<.*?<th scope="row">q000<', client.get("/queues").text, re.DOTALL)


def test_what_is_wrong_names_each_kind_of_problem_before_many_of_one_kind() -> None:
    found = [Finding("queue", "problem", str(number)) for number in range(6)]
    found += [Finding("leak", "problem", "leak"), Finding("pool", "note", "pool")]
    assert [each.text for each in mixed(found)] == ["0", "1", "2", "leak", "3", "4", "5", "pool"]


def test_the_page_of_leaks_names_the_objects_that_grew_without_an_alert(app: Flask, connection: Redis) -> None:
    leak = events.LeakFound(
        job="shop.A", job_id="j", queue="q", worker="ada", mb_per_run=1.5, runs=40, grew=[("Customer", 900, 2.5)]
    )
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [a_run("shop.A", "j", time.time())], {}, time.time(), [leak])
        pipeline.execute()
    assert "Customer +900 (2.5 MB)" in app.test_client().get("/leaks").text


def test_who_retries_by_a_filter_that_nothing_fits_is_told_so(app: Flask, connection: Redis) -> None:
    page = app.test_client().get("/jobs/retry?error=customer").text
    assert "There is no failed job to retry" in page and "None fits this filter" in page
    assert 'class="main"' not in page
