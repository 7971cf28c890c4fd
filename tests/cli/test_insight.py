"""A real worker over leaking, caching, drifting and healthy jobs: all views name the right ones, with equal figures.

``python -m scripts.insight --minutes 60`` is the same for longer.
"""

from __future__ import annotations

import pytest
from redis import Redis

from scripts import insight

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
ROUNDS = 30


def test_the_right_ones_are_named_with_equal_figures(connection: Redis, redis_url: str) -> None:
    with insight.worked(redis_url, lambda rounds: rounds / ROUNDS):
        views = insight.look(redis_url)
    assert insight.complaints(views) == []
    assert views.report[insight.NAMES["Leaking"]]["runs"] == insight.LEAKS_A_ROUND * ROUNDS
    assert {each["name"] for each in views.troubles} >= {"leak", "breaches"}
