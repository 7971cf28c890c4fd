"""Types what a page of the docs says to type, in an empty directory, and compares what is printed.

A block of Python that begins with the name of a file is written to it, or added to it where the name is followed by
"at its end". Of a block of commands each line with ``$`` is typed. The lines below it must be printed, in that order;
``...`` stands for anything. What serves (a worker without ``--burst``, an exporter, a web server) runs to the end of
the page, on a free port; ``curl`` asks it there. ``redis://localhost:6379/0`` is the Redis of the test. ``# ends with
N`` after a command names its exit code. ``pip install`` is left out. The addresses in ``alert-urls.txt`` are those of
others: a receiver of ours takes their place.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from rqmem.testing import wait_until
from tests import forked
from tests.conftest import free_port
from tests.receiver import Receiver

ALERT_URLS = "alert-urls.txt"
USUAL_REDIS = "redis://localhost:6379/0"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_READY = "memory ceiling"
_PORT = "--port"
_SERVERS = {"flask": _PORT, "uvicorn": _PORT, "exporter": _PORT, "dashboard": _PORT, "runserver": "", "cron": None}
"""Commands that serve, and their option for a port; None: they have no port."""


class Typist:
    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        bin = Path(sys.executable).parent
        self.directory, self.environ, self.receiver = directory, {"PATH": f"{bin}:/usr/bin:/bin", **environ}, Receiver()
        self.servers: list[tuple[subprocess.Popen[str], Path]] = []
        self.port = self.typed = 0

    def follow(self, page: str) -> None:
        for language, text in _BLOCK.findall(page):
            first = text.partition("\n")[0]
            if first == f"# {ALERT_URLS}":
                (self.directory / ALERT_URLS).write_text(f"{self.receiver.url}\n")
            elif language == "python" and (named := re.fullmatch(r"# ([\w/]+\.py)(, at its end)?", first)):
                with (self.directory / named[1]).open("a" if named[2] else "w") as file:
                    file.write(text)
            elif language == "console":
                for command, _, printed in (each.partition("\n") for each in re.split(r"^\$ ", text, flags=re.M)[1:]):
                    self.type(command, printed.splitlines())

    def type(self, line: str, expected: list[str]) -> None:
        ends_with = re.search(r"  # ends with (\d+)$", line)
        words = shlex.split(line.replace(USUAL_REDIS, self.environ.get("RQMEM_REDIS_URL", "")), comments=True)
        environ = dict(self.environ)
        while "=" in words[0]:
            name, _, environ[name] = words.pop(0).partition("=")
        if words[0] == "pip":
            return
        self.typed += 1
        if words[0] == "curl":
            self.check(line, self.ask(words), expected)
            return
        serves = next((word for word in words if word in _SERVERS), None)
        if words[:2] == ["rqmem", "worker"] and "--burst" not in words:
            log = self.start(words, environ)
            self.wait(lambda: _READY in log.read_text())
            self.check(line, log.read_text(), expected)
        elif serves is not None:
            log = self.serve(words, _SERVERS[serves], environ)
            self.wait(lambda: not self.missing(log.read_text(), expected))
        else:
            if words[0] == "rqmem":
                run = forked.run([sys.executable, "-m", *words], env=environ, cwd=self.directory)
            else:
                run = subprocess.run(
                    words, env=environ, cwd=self.directory, capture_output=True, text=True, timeout=300
                )
            assert run.returncode == int(ends_with[1] if ends_with else 0), f"{line}\n{run.stdout}{run.stderr}"
            self.check(line, run.stdout + run.stderr, expected)

    def start(self, words: list[str], environ: dict[str, str]) -> Path:
        log = self.directory / f"server{len(self.servers)}.log"
        ours = words[0] == "rqmem"
        with log.open("w") as file:
            process = (forked.Popen if ours else subprocess.Popen)(
                [sys.executable, "-m", *words] if ours else words,
                env=environ, cwd=self.directory, stdout=file, stderr=file, text=True,
            )  # fmt: skip
        self.servers.append((process, log))
        return log

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until what was started last is ready."""
        process, log = self.servers[-1]
        wait_until(lambda: ready() or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()

    def serve(self, words: list[str], option: str | None, environ: dict[str, str]) -> Path:
        """Start what serves, wait until it takes connections, and return its log."""
        if option is None:
            return self.start(words, environ)
        self.port = free_port()
        log = self.start([*words, *option.split(), str(self.port)], environ)
        self.wait(lambda: answers(self.port))
        return log

    def ask(self, words: list[str]) -> str:
        """What ``curl -X METHOD ADDRESS`` prints."""
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        address = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}", words[-1])
        with urlopen(Request(address, method=method), timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    @classmethod
    def check(cls, line: str, printed: str, expected: list[str]) -> None:
        missing = cls.missing(printed, expected)
        assert not missing, f"{line}\nwas to print: {missing[0]}\nbut printed:\n{printed}"

    @staticmethod
    def missing(printed: str, expected: list[str]) -> list[str]:
        text = " ".join(printed.split())
        patterns = {
            line: ".*?".join(re.escape(" ".join(part.split())) for part in line.split("...")) for line in expected
        }
        return [line for line, pattern in patterns.items() if not re.search(pattern, text)]

    def end(self) -> None:
        for process, _ in self.servers:
            process.terminate()
        for process, log in self.servers:
            ended = process.wait(60)
            assert ended == 0 or _READY not in log.read_text(), log.read_text()

    def kill_rest(self) -> None:
        for process, _ in self.servers:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.receiver.close()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
