"""The pages of docs/start are typed, command by command, in an empty directory with the embedded Redis.

A block of Python that begins with the name of a file is written to it. Of a block of commands each line with ``$`` is
typed. The lines below it must be printed, in that order; ``...`` stands for anything. A worker without ``--burst``, and
the dashboard, run to the end of the page; the dashboard on any free port, and it must answer. ``# ends with N`` after a
command names its exit code. ``pip install`` is left out. The addresses in ``alert-urls.txt`` are those of others: a
receiver of ours takes their place, and must hear of a breach.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from rqmem.connection import embedded
from rqmem.testing import wait_until
from tests import forked
from tests.conftest import ROOT
from tests.receiver import Receiver

PAGES = sorted((ROOT / "docs" / "start").glob("*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_READY = {"worker": "memory ceiling", "dashboard": "Ctrl-C ends it"}
ALERT_URLS = "alert-urls.txt"


class Typist:
    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory, self.environ, self.receiver = directory, environ, Receiver()
        self.workers: list[tuple[subprocess.Popen[str], Path]] = []
        self.typed = 0

    def follow(self, page: str) -> None:
        for language, text in _BLOCK.findall(page):
            first = text.partition("\n")[0]
            if first == f"# {ALERT_URLS}":
                (self.directory / ALERT_URLS).write_text(f"{self.receiver.url}\n")
            elif first.startswith("# ") and language == "python":
                (self.directory / first.removeprefix("# ")).write_text(text)
            elif language == "console":
                for command, _, printed in (each.partition("\n") for each in re.split(r"^\$ ", text, flags=re.M)[1:]):
                    self.type(command, printed.splitlines())

    def type(self, line: str, expected: list[str]) -> None:
        ends_with = re.search(r"  # ends with (\d+)$", line)
        words = shlex.split(line, comments=True)
        if words[0] == "pip":
            return
        if words[0] == "python":
            done = subprocess.run([sys.executable, *words[1:]], cwd=self.directory, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return
        assert words[0] == "rqmem", line
        self.typed += 1
        command = [sys.executable, "-m", "rqmem", *words[1:]]
        if words[1] in _READY and "--burst" not in words:
            printed = self.start(command, _READY[words[1]])
            self.check(line, printed, expected)
            return
        done = forked.run(command, env=self.environ, cwd=self.directory)
        assert done.returncode == int(ends_with[1] if ends_with else 0), f"{line}\n{done.stdout}{done.stderr}"
        self.check(line, done.stdout + done.stderr, expected)

    def start(self, command: list[str], ready: str) -> str:
        log = self.directory / f"started{len(self.workers)}.log"
        dashboard = command[3] == "dashboard"
        command += ["--port", "0"] if dashboard else []
        with log.open("w") as file:
            process = forked.Popen(command, env=self.environ, cwd=self.directory, stdout=file, stderr=file, text=True)
        self.workers.append((process, log))
        wait_until(lambda: ready in log.read_text() or process.poll() is not None, 60)
        if dashboard:
            [address] = re.findall(r"http://127\.0\.0\.1:\d+/", log.read_text())
            with urlopen(address, timeout=60) as answer:
                assert answer.status == 200
        return log.read_text()

    @staticmethod
    def check(line: str, printed: str, expected: list[str]) -> None:
        text = " ".join(printed.split())
        for each in expected:
            pattern = ".*?".join(re.escape(" ".join(part.split())) for part in each.split("..."))
            assert re.search(pattern, text), f"{line}\nwas to print: {each}\nbut printed:\n{printed}"

    def end(self) -> None:
        for process, _ in self.workers:
            process.terminate()
        for process, log in self.workers:
            assert process.wait(60) == 0, log.read_text()

    def kill_rest(self) -> None:
        for process, _ in self.workers:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.receiver.close()


@pytest.fixture
def typist(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    run = tmp_path_factory.mktemp("run")
    environ = {"XDG_RUNTIME_DIR": str(run), "PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    typist = Typist(tmp_path, environ)
    try:
        yield typist
        typist.end()
    finally:
        typist.kill_rest()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(run))
            embedded.stop(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_to_type_does_what_it_says(typist: Typist, page: Path) -> None:
    typist.follow(page.read_text())
    assert typist.typed
    if (typist.directory / ALERT_URLS).exists():
        wait_until(lambda: any("used " in str(message["message"]) for message in typist.receiver.messages), 60)
