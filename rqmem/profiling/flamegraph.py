"""A capture as memray's HTML, made by memray itself in a process of its own: captures may be large."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from rqmem import own_files
from rqmem.errors import ConfigError, RqmemError

_USAGE = 2
_COMMAND = [sys.executable, "-m", "memray", "flamegraph", "--force"]


def write(capture: Path, output: Path) -> None:
    """Write it to ``output``, for our eyes only: it holds lines of code. Raises `RqmemError`."""
    if importlib.util.find_spec("memray") is None:
        raise RqmemError("a flame graph is drawn by memray, which is not installed here: pip install 'rqmem[profile]'")
    half = own_files.beside(output)
    try:
        os.close(own_files.create(half))
        drawn = _draw(capture, half, "--no-web")  # the file opens without a network
        if drawn.returncode == _USAGE:  # a memray that has no such option
            drawn = _draw(capture, half)
        if drawn.returncode != 0:
            said = (drawn.stderr.strip() or drawn.stdout.strip()).splitlines()
            raise RqmemError(f"memray cannot draw {capture}: {said[-1] if said else f'exit code {drawn.returncode}'}")
        half.replace(output)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            half.unlink()


def _draw(capture: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_COMMAND, *options, "--output", str(output), str(capture)], capture_output=True, text=True, check=False
    )
