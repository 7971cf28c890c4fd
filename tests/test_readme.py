"""README's examples run, and its table of settings is the code's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue

from rqmem.config import _VARIABLES, Config
from tests.conftest import ROOT, StartWorker

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_job_runs(connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker) -> None:
    module, script, _ = blocks("python")
    name = module.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(module)
    environ = {"RQMEM_REDIS_URL": redis_url, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    ending = "\nprint(job.id, later.id)"
    done = subprocess.run(
        [sys.executable, "-c", script + ending], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    start_worker("invoices", "night", "--burst", "--memory", "256", directory=tmp_path).finish()
    for queue, job_id in zip(("invoices", "night"), done.stdout.split(), strict=True):
        job = Queue(queue, connection=connection).fetch_job(job_id)
        assert job is not None
        assert job.return_value() == 1000


def test_the_example_function_runs() -> None:
    names: dict[str, Any] = {"__name__": "reports"}
    exec(blocks("python")[2], names)
    assert names["build_report"](2026) == 1000


def test_the_json_line_is_json_with_the_keys_in_their_order() -> None:
    [line] = blocks("json")
    assert list(json.loads(line))[-3:] == ["job_id", "queue", "worker"]


def test_the_table_of_settings_is_complete_and_right() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", README, re.MULTILINE))
    assert set(rows) == set(_VARIABLES)
    for variable, shown in rows.items():
        default = getattr(Config(), _VARIABLES[variable][0])
        if shown == "none":
            assert not default
        else:
            assert _VARIABLES[variable][1](shown, variable) == default


def test_every_make_target_is_real() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^\$ |`)make ([a-z ]+)", README, re.MULTILINE)
    assert {word for words in named for word in words.split()} <= targets
    assert {"help", "demo", "test", "lint", "typecheck", "bench", "clean"} <= targets
