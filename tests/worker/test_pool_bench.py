"""The demonstration of a pool that never runs out of memory: its judgement, and one run in its shortest form."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.pool import Result
from scripts.bench.pool_promises import Evidence, broken
from tests.conftest import ROOT

KEPT = Evidence(
    states={"a": ["finished"], "b": ["failed"]},
    resumable=frozenset("a"),
    evicted={"a": 1, "b": 1},
    repeated_chunks={"a": 1},
    begun={"a": 2, "b": 1},
)


def test_a_run_that_keeps_all_promises_is_told_so() -> None:
    assert broken(Result("pool", kernel_kills=0, longest_wait_seconds=69), KEPT, 10) == []
    assert broken(Result("pool", kernel_kills=None), KEPT, 10) == []


@pytest.mark.parametrize(
    ("result", "evidence", "said"),
    [
        ({"kernel_kills": 2}, {}, "the kernel killed 2 processes"),
        ({}, {"states": {"a": ["finished"], "b": ["queued"]}}, "1 jobs did not end in one state: b is queued"),
        ({}, {"states": {"a": ["finished"], "b": []}}, "1 jobs did not end in one state: b is gone"),
        ({}, {"states": {"a": ["finished"], "b": ["finished", "failed"]}}, "b is finished and failed"),
        ({}, {"states": {"a": ["failed"]}}, "1 evicted jobs that can continue did not finish: a"),
        ({}, {"repeated_chunks": {"a": 2}}, "1 jobs repeated more than the chunk in hand: a repeated 2"),
        ({"longest_wait_seconds": 71.0}, {}, "a job waited 71 s; the bound is 70"),
    ],
)
def test_a_broken_promise_is_told(result: dict[str, Any], evidence: dict[str, Any], said: str) -> None:
    [found] = broken(replace(Result("pool"), **result), replace(KEPT, **evidence), 10)
    assert said in found


@pytest.mark.alone
def test_in_600_mb_with_kills_and_a_neighbour_all_promises_hold(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = ["scripts.bench.pool", "--seconds", "15", "--only", "rqmem pool", "--json", str(figures)]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [result] = json.loads(figures.read_text())
    assert result["enqueued"] > 20 and result["done"] > 0
