"""Starts ``python -m`` of our programs by forking a process that has imported rqmem: 0.6 s of CPU less each.

`Popen` and `run` are those of `subprocess`. They fork if the started program cannot tell the difference. Otherwise they
start it as usual: with a prefix, another program, a terminal as output, a ``sitecustomize``, or a changed variable that
Python or a library reads when it starts. Tests of the start itself and of imports use `subprocess`.

Run as a program, this file is the process that is forked. It forks twice. The first child ends at once, so that the
second becomes a child of the test's process, which is a subreaper for that moment.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("rqmem", "rq", "seeds", "scripts", "tests")
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC", "GLIBC", "TZ", "OMP_", "OTEL_")
LARGEST_REQUEST = 100_000
_PARAMETERS = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]
_one_at_a_time = threading.Lock()
_libraries: tuple[str, ...] = ()
_starts_anew = False


@contextmanager
def preloading(*libraries: str) -> Iterator[None]:
    """In the block, fork a process that has imported these too, as far as they are installed."""
    global _libraries
    before, _libraries = _libraries, libraries
    yield
    _libraries = before


@contextmanager
def starting_anew() -> Iterator[None]:
    """In the block, fork nothing: pages shared with a parent would change what the tests measure."""
    global _starts_anew
    _starts_anew = True
    yield
    _starts_anew = False


def environ(**more: str) -> dict[str, str]:
    """Where rqmem is found, with these settings and none of whoever runs the tests."""
    theirs = ("RQMEM_", "MEMORY_", "REDIS_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**clean, "PYTHONPATH": str(ROOT), **more}


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    def _execute_child(self, *values: Any) -> None:
        given = dict(zip(_PARAMETERS, values, strict=True))
        files = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        files = [own if file < 0 else file for own, file in enumerate(files)]
        environ = os.environ if given["env"] is None else given["env"]
        request = {
            "arguments": [os.fsdecode(argument) for argument in given["args"]],
            "directory": str(given["cwd"] or os.getcwd()),  # noqa: PTH109
            "environ": dict(environ),
            "new_session": given["start_new_session"],
            "parent": os.getpid(),
        }
        message = json.dumps(request).encode()
        asks_for_more = any(given[name] for name in ("preexec_fn", "pass_fds", "uid", "gid"))
        if not asks_for_more and len(message) < LARGEST_REQUEST and _can_fork(request, files):
            self.pid = _fork(message, files)
            self._child_created = True
            self._close_pipe_fds(*values[_PARAMETERS.index("p2cread") :][:6])  # type: ignore[attr-defined]
        else:
            super()._execute_child(*values)  # type: ignore[misc]


def run(
    arguments: list[str], *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with ``capture_output=True, text=True``."""
    with Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(arguments, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


def run_module(
    module: str, *arguments: str, directory: Path = ROOT, timeout: float = 300, **environ: str
) -> subprocess.CompletedProcess[str]:
    """``python -m module`` to its end. ``environ``: in addition to ours."""
    full = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return run([sys.executable, "-m", module, *arguments], env=full, cwd=directory, timeout=timeout)


def run_code(
    code: str, *arguments: str, directory: Path = ROOT, timeout: float = 300, **environ: str
) -> subprocess.CompletedProcess[str]:
    """The same with ``python -c code``, in a process that is not forked."""
    full, command = {**os.environ, "PYTHONPATH": str(ROOT), **environ}, [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=full, cwd=directory, timeout=timeout, capture_output=True, text=True)


def _can_fork(request: Mapping[str, Any], files: list[int]) -> bool:
    arguments, environ = request["arguments"], request["environ"]
    return (
        not _starts_anew
        and arguments[:2] == [sys.executable, "-m"]
        and arguments[2].partition(".")[0] in PACKAGES
        and _read_at_start(environ) == _read_at_start(_server(os.getpid(), _libraries)[1])
        and not any(map(os.isatty, files))
        and Path(request["directory"]).is_dir()
        and not any(Path(path, "sitecustomize.py").exists() for path in environ.get("PYTHONPATH", "").split(os.pathsep))
    )


def _read_at_start(environ: Mapping[str, str]) -> dict[str, str]:
    none = ("", "C.UTF-8")  # Python's locale where none is named, too
    read = {name: value for name, value in environ.items() if value not in none and name.startswith(READ_AT_START)}
    read.pop("PYTHONPATH", None)
    return read


@functools.cache
def _server(of_process: int, libraries: tuple[str, ...]) -> tuple[socket.socket, dict[str, str]]:
    """Where this process asks for a fork, and the environment that was there when the server started."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno()), *libraries]
        nothing = subprocess.DEVNULL
        subprocess.Popen(command, env=environ, cwd=ROOT, stdin=nothing, stdout=nothing, pass_fds=[theirs.fileno()])
    return ours, environ


def _fork(message: bytes, files: list[int]) -> int:
    from rqmem.measure import linux

    server, _ = _server(os.getpid(), _libraries)
    with _one_at_a_time:
        before = linux.become_subreaper()
        socket.send_fds(server, [message], files)
        pid = int(server.recv(20))
        server.recv(20)  # the first child has ended
        linux.become_subreaper(before)
    return pid


def _serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns it in the process forked for it, and None in this one at the end."""
    while True:
        message, files, _, _ = socket.recv_fds(asked, LARGEST_REQUEST, 3)
        if not message:
            return None
        if first := os.fork():
            os.waitpid(first, 0)
            asked.send(b"ended")
            for file in files:
                os.close(file)
        elif second := os.fork():
            asked.send(str(second).encode())
            os._exit(0)
        else:
            asked.close()
            for own, file in enumerate(files):
                os.dup2(file, own)
                os.close(file)
            request: dict[str, Any] = json.loads(message)
            return request


def _become(request: dict[str, Any]) -> None:
    """Be as a process that was started with these arguments, in this directory and environment."""
    while os.getppid() != request["parent"]:
        time.sleep(0.0005)
    for own, name in enumerate(("stdin", "stdout", "stderr")):
        was = getattr(sys, name)  # it was made for another kind of file
        now = open(own, was.mode, encoding=was.encoding, errors=was.errors, closefd=False)  # noqa: SIM115
        now.reconfigure(line_buffering=was.line_buffering)
        setattr(sys, name, now)
        setattr(sys, f"__{name}__", now)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.orig_argv[:] = request["arguments"]
    sys.argv[:] = request["arguments"][2:]
    paths = request["environ"].get("PYTHONPATH", "")
    sys.path[:2] = [str(Path(path).absolute()) for path in (".", *filter(None, paths.split(os.pathsep)))]
    importlib.invalidate_caches()
    runpy.run_module(request["arguments"][2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    import click

    from rqmem import cli

    for name in cli._COMMANDS:
        cli.main.get_command(click.Context(cli.main), name)
    for name in ("rq.cli", "rqmem.job.running", *sys.argv[2:]):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or else a forked process copies all of this when it ends
    if request := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _become(request)
