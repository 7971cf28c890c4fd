"""Shared by the scripts: a Redis of their own, a clean environment, running programs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rq.job import Job

from rqmem.cli.options import parsed
from rqmem.config.load import FILE_VARIABLE
from rqmem.config.settings import positive_mb
from rqmem.connection import embedded
from rqmem.tracebacks import what_was_raised

ROOT = Path(__file__).parents[1]
MB = parsed("MB", positive_mb)
"""The arguments of `click.option` for a size."""

_SETTINGS = ("RQMEM_", "MEMORY_", "JOB_")
_END_SECONDS = 15.0


@contextmanager
def own_redis() -> Iterator[str]:
    """The URL of an embedded Redis that nobody else uses. At the end it is stopped and its data are removed."""
    with tempfile.TemporaryDirectory(prefix="rqmem-script-") as folder:
        try:
            yield embedded.start(Path(folder)).url
        finally:
            embedded.stop(Path(folder))


def without_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without rqmem's settings and config file, so that a script uses rqmem with its defaults."""
    clean = {name: value for name, value in environ.items() if not name.startswith(_SETTINGS)}
    return clean | {FILE_VARIABLE: os.devnull}


def heading(text: str) -> None:
    click.secho(f"\n== {text}", bold=True)
    sys.stdout.flush()


def error_of(job: Job) -> str:
    """What the job's last execution raised, in one line; empty if nothing."""
    result = job.latest_result()
    return what_was_raised((result.exc_string if result else None) or "")


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program, started by ``python -m`` in the repository's root. It is ended when the block is left.

    Args:
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen([sys.executable, "-m", *command], **{"cwd": ROOT, **options})
    try:
        yield process
    finally:
        end(process)


@contextmanager
def dashboard(log: Path, port: int = 9181) -> Iterator[str]:
    """``rqmem dashboard`` on that port, or on a free one where it is taken; yields its address.

    ``log``: where its output goes.
    """
    for wanted in (port, 0):
        with log.open("w") as output, running("rqmem", "dashboard", "--port", str(wanted), stderr=output) as process:
            while process.poll() is None:
                if found := re.search(r"http://\S+/", log.read_text()):
                    yield found[0]
                    return
                time.sleep(0.05)
    raise click.ClickException(f"the dashboard does not start: {log.read_text()[-500:]}")


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a program to end, and kill it if it does not. A second SIGTERM ends the job that an RQ worker runs."""
    for _ in range(3):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_SECONDS / 3)
            except subprocess.TimeoutExpired:
                continue
    if process.poll() is None:
        process.kill()  # its horse dies with it
    process.wait()
