"""What type checkers tell users of rqmem: a name that is not there is an error, and results have their types."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

Checker = Callable[[Path], tuple[str, set[int]]]

USER = """
from rqmem import MemoryAwareJob, MemoryWorker, connect, current_memory, memory_aware


class Send(MemoryAwareJob):
    memory_limit_mb = 100

    def handle(self) -> int:
        lists: list[str] = self.process_in_chunks(range(10), self.lists)
        pairs: list[str] = self.process_in_chunks(range(10), self.pairs)
        maybe: list[str] = self.process_in_chunks(range(10), self.maybe)
        numbers: list[int] = self.process_in_chunks(["a"], len)
        records: list[dict[str, int]] = self.process_in_chunks(range(10), self.records, 5, collect=True)
        self.process_in_chunks(range(10), self.nothing)
        for chunk in self.chunks(["a"]):
            print(chunk[0].upper())
        return len([*lists, *pairs, *maybe]) + sum(numbers) + len(records)

    def lists(self, chunk: list[int]) -> list[str]:
        return [str(each) for each in chunk]

    def pairs(self, chunk: list[int]) -> tuple[str, ...]:
        return ("a",)

    def maybe(self, chunk: list[int]) -> list[str] | None:
        return None

    def records(self, chunk: list[int]) -> dict[str, int]:
        return {}

    def nothing(self, chunk: list[int]) -> None:
        pass


@memory_aware(memory_limit_mb=200)
def report(year: int) -> int:
    current_memory().check_memory_usage("begun")
    return year


total: int = report(2026)
worker: type[MemoryWorker] = MemoryWorker
print(connect())
"""
WRONG = """
from rqmem import MemoryAwareJob, Nonsense, memory_aware
import rqmem

rqmem.nonsense


class Send(MemoryAwareJob):
    def handle(self) -> None:
        wrong: list[int] = self.process_in_chunks(range(10), self.lists)
        self.process_in_chunks(["text"], self.lists)

    def lists(self, chunk: list[int]) -> list[str]:
        return []


@memory_aware(memory_limit_mb=200)
def report(year: int) -> int:
    return year


report("2026")
"""
BAD_LINES = {2, 5, 10, 11, 22}


def mypy(file: Path) -> tuple[str, set[int]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-incremental", file.name]
    environ = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=file.parent, env=environ, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, _lines(done.stdout, file.name)


def pyright(file: Path) -> tuple[str, set[int]]:
    name = next((each for each in ("pyright", "basedpyright") if importlib.util.find_spec(each)), None)
    if name is None:
        pytest.skip("neither pyright nor basedpyright is installed")
    config = f'{{"extraPaths": ["{ROOT}"], "typeCheckingMode": "strict", "reportUnusedExpression": false}}'
    (file.parent / "pyrightconfig.json").write_text(config)
    command = [sys.executable, "-m", name, "--pythonpath", sys.executable, file.name]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    errors = "\n".join(line for line in done.stdout.splitlines() if " - error:" in line)
    return done.stdout + done.stderr, _lines(errors, file.name)


def _lines(told: str, name: str) -> set[int]:
    return {int(number) for number in re.findall(rf"{re.escape(name)}:(\d+):.*?\berror", told)}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_users_file_passes_and_mistakes_in_it_do_not(tmp_path: Path, checker: Checker) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(USER)
    wrong.write_text(WRONG)
    told, bad = checker(right)
    assert not bad, told
    told, bad = checker(wrong)
    assert bad == BAD_LINES, told
