"""What type checkers tell users of rqmem: a name that is not there is an error, and results have their types."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.test_pages import PAGES, files

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
UNANNOTATED = """
allow_untyped_defs = True
allow_incomplete_defs = True
allow_untyped_calls = True
disallow_any_generics = False
disable_error_code = import-untyped
"""
"""Examples leave out annotations, as most applications do, and so does Django; all else is as strict."""
UNKNOWN = dict.fromkeys(
    (
        "reportMissingParameterType", "reportUnknownParameterType", "reportUnknownArgumentType",
        "reportUnknownVariableType", "reportUnknownMemberType", "reportUnknownLambdaType", "reportMissingTypeArgument",
        "reportIncompatibleMethodOverride", "reportMissingTypeStubs",
    ),
    False,
)  # fmt: skip
"""The same for pyright."""


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


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a user's two files."""
    directory = tmp_path_factory.mktemp("users")
    (directory / "right.py").write_text(USER)
    (directory / "wrong.py").write_text(WRONG)
    return directory


@pytest.fixture(scope="module")
def mypy(examples: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Checks the files of a directory and returns what is printed. What it knows of rqmem, it learns once."""
    place = tmp_path_factory.mktemp("mypy")
    unannotated = ",".join(sorted({file.stem for directory in examples for file in directory.glob("*.py")}))
    strict = f"[mypy]\nstrict = True\nfollow_imports = silent\ncache_dir = {place}\n"
    (place / "mypy.ini").write_text(f"{strict}[mypy-{unannotated}]\n{UNANNOTATED}")

    def check(directory: Path) -> str:
        names = sorted(file.name for file in directory.glob("*.py"))
        command = [sys.executable, "-m", "mypy", "--config-file", str(place / "mypy.ini"), *names]
        environ = {**os.environ, "MYPYPATH": str(ROOT)}
        done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return check


def test_the_examples_of_the_docs_pass_mypy(examples: list[Path], mypy: Callable[[Path], str]) -> None:
    for directory in examples:
        assert "Success: no issues found" in (told := mypy(directory)), told


def test_a_users_file_passes_mypy_and_mistakes_in_another_do_not(users: Path, mypy: Callable[[Path], str]) -> None:
    told = mypy(users)
    found = re.findall(r"^([^:\n]+):(\d+):.*?\berror", told, re.MULTILINE)
    assert {(name, int(line)) for name, line in found} == {("wrong.py", line) for line in BAD_LINES}, told


def test_pyright_says_the_same(examples: list[Path], users: Path, tmp_path: Path) -> None:
    places = [{"root": str(directory), "extraPaths": [str(ROOT)], **UNKNOWN} for directory in examples]
    options = {
        "include": [str(each) for each in (*examples, users)], "typeCheckingMode": "strict",
        "reportUnusedExpression": False, "extraPaths": [str(ROOT)],
        "executionEnvironments": [*places, {"root": str(users), "extraPaths": [str(ROOT)]}],
    }  # fmt: skip
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson", "-p", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] > 20
    errors = [each for each in found["generalDiagnostics"] if each["severity"] == "error"]
    at = {(each["file"], each["range"]["start"]["line"] + 1) for each in errors}
    assert at == {(str(users / "wrong.py"), line) for line in BAD_LINES}, errors
