"""``make pictures``: makes README's pictures again, in docs/pictures/. Three minutes.

They show what commands really print: for the demo, and for a worker with a job that leaks and one whose needs grow
(`scripts.insight`). The plots are those that `scripts.back_test` and `scripts.chunk_size_plot` draw.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import click

from scripts import dashboard_pictures, insight
from scripts.harness import ROOT, own_redis

PICTURES = ROOT / "docs" / "pictures"
_COLUMNS = 100
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # fetched from elsewhere; any fixed-width one does


@click.command()
@click.option("--seconds", type=click.IntRange(10), default=90, show_default=True, help="The leaking worker runs.")
def main(seconds: int) -> None:
    """Make the pictures."""
    PICTURES.mkdir(exist_ok=True)
    for script, name in (("back_test", "recommended-ceilings"), ("chunk_size_plot", "chunk-sizes")):
        _run([sys.executable, "-m", f"scripts.{script}", "--output", str(PICTURES / f"{name}.png")])
    with own_redis() as url:
        _run([sys.executable, "-m", "scripts.demo"], RQMEM_REDIS_URL=url)
        _picture("inspect", url, "inspect", dashboard_pictures.breached(url))
    if reason := dashboard_pictures.missing():
        click.echo(f"the dashboard's pictures stay as they are: {reason}", err=True)
    else:
        with own_redis() as url:
            dashboard_pictures.take(PICTURES, url)
    with own_redis() as url:
        began = time.monotonic()
        with insight.worked(url, lambda rounds: min(1.0, (time.monotonic() - began) / seconds)):
            for command in ("status", "report", "recommend"):
                _picture(command, url, command)
    click.echo(f"made in {PICTURES.relative_to(ROOT)}: {', '.join(sorted(each.name for each in PICTURES.iterdir()))}")


def _run(command: list[str], **environ: str) -> None:
    """Raises `click.ClickException` where it fails."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True)
    if done.returncode != 0:
        raise click.ClickException(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr[-500:]}")


def _picture(name: str, url: str, *arguments: str) -> None:
    """What an rqmem command prints on a terminal, in its colours, as an SVG file; with another address of Redis."""
    from rich.console import Console
    from rich.text import Text

    shown = _on_terminal(url, *arguments).replace(url, "redis://127.0.0.1:6379")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=_COLUMNS, record=True, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(shown))
    title = " ".join(["rqmem", *(argument if len(argument) < 30 else f"{argument[:8]}..." for argument in arguments)])
    svg = console.export_svg(title=title, unique_id=name)
    (PICTURES / f"{name}.svg").write_text(_FONT.sub("", svg), encoding="utf-8")


def _on_terminal(url: str, *arguments: str) -> str:
    """What the command writes to a pseudo-terminal. Its exit code is about the jobs, and does not matter here."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "RQMEM_REDIS_URL": url, "COLUMNS": str(_COLUMNS), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rqmem", *arguments], cwd=ROOT, env=environ, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = b""
    try:
        while part := os.read(ours, 65536):
            output += part
    except OSError:  # its end, on Linux
        pass
    process.wait()
    os.close(ours)
    return output.decode("utf-8", "replace").replace("\r\n", "\n")


if __name__ == "__main__":
    main()
