"""The recommended ceilings on the page of all job types."""

from __future__ import annotations

import itertools
import math
import re
import time
from dataclasses import replace

import pytest
from flask import Flask
from redis import Redis

from rqmem.config.settings import Config
from rqmem.dashboard.advised import Advised
from rqmem.observe.advice import recommended_mb
from rqmem.observe.period_read import read_advice
from rqmem.store.history import history_writer
from tests.journal_filling import a_run


def write_runs(connection: Redis, job_type: str, runs: int, limit_mb: float = 256.0) -> None:
    at = time.time()
    run = replace(a_run(job_type, "j", at), limit_mb=limit_mb, declared_mb=limit_mb)
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [run] * runs, {}, at)
        pipeline.execute()


def test_some_more_are_known_at_each_look_and_are_those_that_are_recommended(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, now, advised = ["shop.A", "shop.B", "shop.New"], time.time(), Advised()
    for name, runs in zip(asked, (40, 60, 1), strict=True):
        write_runs(connection, name, runs)
    assert advised.ceilings(connection, asked, now, until=0.0) == {}
    with monkeypatch.context() as patch:
        ticks = itertools.cycle([0.0, 2.0])
        patch.setattr(time, "thread_time", lambda: next(ticks))
        looks = [advised.ceilings(connection, asked, now, until=1.0) for _ in asked]
    assert [len(each) for each in looks] == [1, 2, 3]
    whole = Advised().ceilings(connection, asked, now, until=math.inf)
    assert whole == looks[-1]
    assert whole["shop.New"] is None
    advice = read_advice(connection, "", Config.warning_threshold, now, "shop.A").jobs[0]
    assert whole["shop.A"] == recommended_mb(advice.found) is not None


def test_they_are_read_again_after_ten_minutes(connection: Redis) -> None:
    write_runs(connection, "shop.A", 1)
    advised, now = Advised(), time.time()
    assert advised.ceilings(connection, ["shop.A"], now, until=math.inf) == {"shop.A": None}
    write_runs(connection, "shop.A", 40)
    assert advised.ceilings(connection, ["shop.A"], now + 60, until=math.inf) == {"shop.A": None}
    assert advised.ceilings(connection, ["shop.A"], now + 601, until=math.inf)["shop.A"] is not None


def test_the_page_marks_a_ceiling_that_is_far_too_high(app: Flask, connection: Redis) -> None:
    write_runs(connection, "shop.Small", 40, limit_mb=2048.0)
    page = app.test_client().get("/types").text
    assert re.search(r'2,048 → <span class="good">\d+</span>', page)
