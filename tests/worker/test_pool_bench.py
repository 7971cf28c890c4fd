"""The demonstration of a pool that never runs out of memory, in its short form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.alone
def test_in_600_mb_with_kills_and_a_neighbour_no_job_is_lost(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = ["scripts.bench.pool", "--seconds", "20", "--only", "rqmem", "--json", str(figures)]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [result] = json.loads(figures.read_text())
    assert result["enqueued"] > 20 and result["done"] > 0
    assert result["lost"] == 0
    assert not result["kernel_kills"]
