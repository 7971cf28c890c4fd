"""What each command that only reads says in one line where there is nothing to read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis

from rqmem.cli import main
from rqmem.store import keys

OF_THE_JOURNAL = (
    ["alerts"], ["inspect", "j1"], ["monitor"], ["recommend"], ["report"], ["status", "--job", "j1"],
)  # fmt: skip
READERS = (*OF_THE_JOURNAL, ["journal", "size"], ["status"])


def said(*command: str) -> str:
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", OF_THE_JOURNAL, ids=" ".join)
def test_a_journal_of_another_version_is_not_read(filled: Redis, redis_url: str, command: list[str]) -> None:
    filled.set(keys.VERSION, 99)
    line = said(*command, "--url", redis_url)
    assert line.startswith("rqmem: the journal on this Redis has version 99, this rqmem reads 1: ")


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_redis_that_is_down_is_named_without_its_password(command: list[str]) -> None:
    line = said(*command, "--url", "redis://:hunter2@127.0.0.1:1/0")
    assert "127.0.0.1:1" in line and "hunter2" not in line


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_the_embedded_server_is_not_started_for_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("RQMEM_REDIS_URL", "RQ_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    assert said(*command).startswith("rqmem: no Redis is named, and the embedded one of this directory does not run")
    assert list(tmp_path.iterdir()) == []
