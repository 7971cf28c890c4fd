"""The JSON of every command, against golden files: one Redis with something of everything in it.

``RQMEM_WRITE_GOLDEN=1 pytest tests/cli/test_json.py`` writes the files anew; the difference shows what has changed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from redis import Redis

from rqmem import __version__, events
from rqmem.connection import embedded
from rqmem.observe.vocabulary import COLUMNS
from tests.cli.conftest import Run
from tests.conftest import ROOT
from tests.journal_filling import WORKER

GOLDEN = ROOT / "tests" / "golden"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_OF_THE_MOMENT = re.compile(r"(^|_)(at|since|until|seconds|size_mb|rate)$")
_OF_THE_MACHINE = ("host", "redis")


def normalised(value: Any, name: str = "") -> Any:
    """The value with what differs from run to run as zeros: its form stays."""
    if isinstance(value, dict):
        moving = name in ("redis_memory", "system")
        return {key: None if moving else normalised(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [normalised(each, name) for each in value]
    if isinstance(value, str):
        text = _TIME.sub(lambda found: re.sub(r"\d", "0", found[0]), value).replace(__version__, "VERSION")
        text = re.sub(r"\d+-\d+", "0-0", text) if name == "id" else text
        text = re.sub(r"(20\d\d-\d\d-\d\d )?\d\d:\d\d:\d\d", "00:00:00", text)
        return "" if name in _OF_THE_MACHINE else text
    moving = name in _OF_THE_MACHINE or _OF_THE_MOMENT.search(name)
    return type(value)() if moving and isinstance(value, (int, float)) and not isinstance(value, bool) else value


def compare(name: str, shown: Any) -> None:
    """``shown`` is as the golden file of that name has it."""
    text = json.dumps(normalised(shown), indent=2, ensure_ascii=False) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("RQMEM_WRITE_GOLDEN"):
        file.write_text(text)
    assert json.loads(text) == json.loads(file.read_text())
    assert text == file.read_text(), "the order of names has changed"


COMMANDS = {
    "status": ["status", "--json"],
    "status-worker": ["status", "--worker", WORKER, "--json"],
    "status-job": ["status", "--job", "parent", "--json"],
    "inspect": ["inspect", "j1", "--json"],
    "inspect-split": ["inspect", "parent", "--json"],
    "top": ["top", "--worker", WORKER, "--once", "--json"],
    "report": ["report", "--json"],
    "recommend": ["recommend", "--json"],
    "alerts": ["alerts", "--json"],
    "journal": ["journal", "size", "--json"],
    "config-jobs": ["config", "--jobs", "--json"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_the_json_of_its_golden_file(filled: Redis, run: Run, name: str) -> None:
    compare(name, run(*COMMANDS[name]))


def test_status_and_report_show_the_ceilings_that_recommend_shows(filled: Redis, run: Run) -> None:
    names = ("ceiling_mb", "declared_ceiling_mb", "recommended_ceiling_mb")
    advised, status, report = (
        {each["job_type"]: [each[name] for name in names] for each in run(command, "--json")["job_types"]}
        for command in ("recommend", "status", "report")
    )
    assert any(None not in each for each in advised.values())
    assert status and status == {name: advised[name] for name in status}
    assert report and report == {name: advised[name] for name in report}


def test_the_monitor_writes_and_prints_the_json_of_its_golden_file(filled: Redis, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    shown = run("monitor", "--duration", "1", "--threshold", "40", "--json", "--output-file", str(file))
    assert shown == json.loads(file.read_text())
    compare("monitor", {**shown, "samples": shown["samples"][:1]})


def test_config_prints_the_json_of_its_golden_file(filled: Redis, run: Run) -> None:
    shown = run("config", "--memory", "300", "--json")
    shown["settings"] = [each for each in shown["settings"] if each["name"] in ("redis", "memory", "chunk_size")]
    shown["settings"][0]["value"] = ""
    compare("config", {**shown, "integrations": []})


def test_redis_status_prints_the_json_of_its_golden_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    server = embedded.Server("unix:///run/redis.sock", "6.2.14", 7, Path("/data"), 2**20, 60, 3)
    monkeypatch.setattr(embedded, "status", lambda: server)
    compare("redis", run("redis", "status", "--json"))


def test_doctor_prints_the_json_of_its_golden_file(run: Run) -> None:
    shown = run("doctor", "--no-redis", "--no-self-test", "--json")
    [memory] = [each for each in shown["findings"] if each["name"] == "memory"] or shown["findings"][:1]
    compare("doctor", {**shown, "healthy": True, "findings": [{**memory, "mark": "ok", "text": "", "advice": ""}]})


OLD_NAMES = {"schema_version", "types", "troubles", "limit_mb", "memory_limit_mb", "seconds", "resumed_count", "bytes"}


def check(value: Any, name: str = "", *, size: bool = False) -> None:
    """The value, which has this name, keeps the rules of the vocabulary."""
    assert name not in OLD_NAMES and (name != "job" or not isinstance(value, str)), name
    if isinstance(value, dict):
        for key, each in value.items():
            check(each, key, size=name.endswith("_mb"))
    elif isinstance(value, list):
        for each in value:
            check(each, size=name.endswith("_mb"))
    elif (size or name.endswith("_mb")) and value is not None:
        assert isinstance(value, float), f"{name}: {value!r}"
    elif name in ("at", "since", "until") or name.endswith("_at"):
        assert value in (None, "0000-00-00T00:00:00.000Z"), f"{name}: {value!r}"
    elif "seconds" in name:
        assert name.endswith("_seconds") and isinstance(value, float | None), f"{name}: {value!r}"
    if name in ("job_types", "workers") and isinstance(value, list):
        assert all(("job_type" if name == "job_types" else "name") in each for each in value)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_all_json_has_one_vocabulary(file: Path) -> None:
    shown = json.loads(file.read_text())
    for each in shown if isinstance(shown, list) else [shown]:
        assert next(iter(each.items())) == ("version", 2)
        check(each)


def test_each_part_of_a_tuple_in_an_event_has_a_name() -> None:
    for kind in events.CATALOGUE.values():
        for name, hint in get_type_hints(kind).items():
            [inner] = get_args(hint) if get_origin(hint) is list else [None]
            if get_origin(inner) is tuple:
                named = "kinds" if (kind, name) == (events.LeakFound, "grew") else name
                assert len(COLUMNS[named]) == len(get_args(inner)), f"{kind.__name__}.{name}"
