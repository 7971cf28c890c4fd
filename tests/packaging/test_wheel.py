"""The wheel as its users get it: built from a clean checkout, installed into an empty environment of each Python.

`make wheel-check` runs these. They need a package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from redis import Redis

from rqmem._version import __version__
from tests.conftest import ROOT

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
JOB = """
from rqmem import MemoryAwareJob


class Squares(MemoryAwareJob):
    memory_limit_mb = 128

    def handle(self, numbers: int) -> int:
        return sum(self.process_in_chunks(range(numbers), self.square))

    def square(self, chunk: list[int]) -> list[int]:
        return [number * number for number in chunk]
"""
DASHBOARD = """
import re, sys
from rqmem import connect
from rqmem.dashboard.app import build
from rqmem.dashboard.options import Options
visitor = build(connect(sys.argv[1]), "Redis", Options(with_rq_dashboard=True)).test_client()
def text(address):
    answer = visitor.get(address, follow_redirects=True)
    assert answer.status_code == 200, (address, answer.status)
    return answer.text
assert text("/jobs") and text("/api/v1/overview") and "RQ" in text("/rq/")
for link in set(re.findall(r'(?:src|href)="([^"]*static/[^"]+)"', text("/"))):
    visitor.get(link).status_code == 200 or sys.exit(link)
"""


def run(*command: str | Path, directory: Path, **environ: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RQMEM_", "MEMORY_"))}
    done = subprocess.run(command, cwd=directory, env=clean | environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Built(NamedTuple):
    """What `build` made of a copy of the files that git has."""

    wheel: Path
    sdist: Path
    files: set[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    files = {each for each in run("git", "ls-files", directory=ROOT).splitlines() if (ROOT / each).exists()}
    for each in files:
        (checkout / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / each, checkout / each)
    run(sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", out, directory=checkout)
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist, files)


def test_the_wheel_has_the_package_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {each for each in built.files if each.startswith("rqmem/")}
    assert {Path(name).suffix for name in names} >= {".py", ".lua", ".html", ".css", ".js", ".typed"}


def test_the_sdist_can_be_tested_and_its_docs_read(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {each for each in built.files if not each.startswith(".")} <= names


def test_the_metadata(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        [name] = [each for each in wheel.namelist() if each.endswith("/METADATA")]
        metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == __version__
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    named = [each for each in metadata.get_all("Classifier", []) if "Python :: 3." in each]
    assert [each.rpartition(" ")[2] for each in named] == list(PYTHONS)


def test_the_long_description_renders(built: Built) -> None:
    check = ("uv", "tool", "run", "twine@6", "check", "--strict")
    run(sys.executable, "-m", *check, built.wheel, built.sdist, directory=ROOT)


def test_each_dependency_has_a_lower_and_an_upper_bound() -> None:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lists = {"install_requires": parser["options"]["install_requires"], **parser["options.extras_require"]}
    wanted = [(extra, each) for extra, text in lists.items() for each in text.splitlines() if each.strip()]
    unbound = [each for each in wanted if not re.search(r"^rqmem\[|>=[\d.]+,<[\d.]+(;.*)?$", each[1])]
    assert len(wanted) > 40 and not unbound


def interpreter(version: str) -> Path:
    """A Python of this version that starts: pyenv puts commands on PATH that do not."""
    on_path = shutil.which(f"python{version}")
    pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    for each in [*([Path(on_path)] if on_path else []), *sorted(pyenv)]:
        if subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
            return each
    pytest.skip(f"no Python {version} on PATH or in ~/.pyenv")


@pytest.mark.parametrize("version", PYTHONS)
def test_pip_install_in_an_empty_environment(
    version: str, built: Built, redis_url: str, connection: Redis, tmp_path: Path
) -> None:
    run(interpreter(version), "-m", "venv", "env", directory=tmp_path)
    python, rqmem = tmp_path / "env/bin/python", tmp_path / "env/bin/rqmem"
    run(python, "-m", "pip", "install", "--quiet", built.wheel, directory=tmp_path)

    def ask(*words: str) -> str:
        return run(rqmem, *words, directory=tmp_path, RQMEM_REDIS_URL=redis_url)

    assert ask("--version").split() == ["rqmem,", "version", __version__]
    (tmp_path / "squares.py").write_text(JOB)
    ask("enqueue", "squares.Squares", "--kwarg", "numbers=1000")
    ask("worker", "--burst")
    assert connection.zcard("rq:finished:default") == 1
    run(python, "-c", DASHBOARD, redis_url, directory=tmp_path)
