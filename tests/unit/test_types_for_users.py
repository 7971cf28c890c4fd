"""What type checkers tell users of rqmem: a name that is not there is an error, and results have their types."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docs.test_pages import PAGES, files

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
SHOP = "class tenants:\n    current: str | None = None\n"
"""The application that an example of a page without a shop of its own speaks of."""
UNANNOTATED = (
    "--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls", "--allow-any-generics",
    "--check-untyped-defs", "--disable-error-code=import-untyped",
)  # fmt: skip
"""Examples leave out annotations, as most applications do, and so does Django; all else is as strict."""


def mypy(file: Path) -> tuple[str, set[int]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-incremental", file.name]
    environ = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=file.parent, env=environ, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, _lines(done.stdout, file.name)


PYRIGHT = {"extraPaths": [str(ROOT)], "typeCheckingMode": "strict", "reportUnusedExpression": False}
UNKNOWN = dict.fromkeys(
    (
        "reportMissingParameterType", "reportUnknownParameterType", "reportUnknownArgumentType",
        "reportUnknownVariableType", "reportUnknownMemberType", "reportUnknownLambdaType", "reportMissingTypeArgument",
        "reportIncompatibleMethodOverride", "reportMissingTypeStubs",
    ),
    False,
)  # fmt: skip


def pyright(file: Path) -> tuple[str, set[int]]:
    found = _pyright(file.parent, [file.name], PYRIGHT)
    errors = [each for each in found["generalDiagnostics"] if each["severity"] == "error"]
    return json.dumps(found), {each["range"]["start"]["line"] + 1 for each in errors}


def _pyright(directory: Path, files: list[str], options: dict[str, Any]) -> dict[str, Any]:
    (directory / "pyrightconfig.json").write_text(json.dumps({**options, "include": files}))
    command = [
        sys.executable,
        "-m",
        "basedpyright",
        "--pythonpath",
        sys.executable,
        "--outputjson",
        "-p",
        str(directory),
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _lines(told: str, name: str) -> set[int]:
    return {int(number) for number in re.findall(rf"{re.escape(name)}:(\d+):.*?\berror", told)}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Directories with the examples of README and docs: in each, those of pages that share no name of a file."""
    directories: list[Path] = []
    for page in PAGES:
        named = files(page)
        if "import shop" in (code := "".join(named.values())) or "from shop" in code:
            named.setdefault("shop.py", SHOP)
        if not named or page.is_relative_to(ROOT / "docs" / "reference"):
            continue
        free = (each for each in directories if not any((each / name).exists() for name in named))
        directory = next(free, None) or tmp_path_factory.mktemp("examples")
        directories += [directory] if directory not in directories else []
        for name, code in named.items():
            (directory / name).write_text(code)
    return directories


def test_the_examples_of_the_docs_pass_mypy(examples: list[Path], tmp_path: Path) -> None:
    for directory in examples:
        names = [file.name for file in directory.glob("*.py")]
        command = [sys.executable, "-m", "mypy", "--strict", *UNANNOTATED, "--follow-imports=silent", *names]
        environ = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_of_the_docs_pass_pyright(examples: list[Path], tmp_path: Path) -> None:
    parts = [{"root": str(directory), "extraPaths": [str(ROOT)]} for directory in examples]
    found = _pyright(tmp_path, [str(each) for each in examples], {**PYRIGHT, **UNKNOWN, "executionEnvironments": parts})
    assert found["summary"]["filesAnalyzed"] > 20
    assert not [each for each in found["generalDiagnostics"] if each["severity"] == "error"], found


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_users_file_passes_and_mistakes_in_it_do_not(tmp_path: Path, checker: Checker) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(USER)
    wrong.write_text(WRONG)
    told, bad = checker(right)
    assert not bad, told
    told, bad = checker(wrong)
    assert bad == BAD_LINES, told
