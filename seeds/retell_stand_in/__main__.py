"""The command: ``python -m seeds.retell_stand_in``."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any, get_args

import click

from seeds.retell_stand_in.faults import ErrorMode, Faults
from seeds.retell_stand_in.server import DEFAULT_KEY, StandIn


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option("--api-key", default=DEFAULT_KEY, show_default=True, help="The key that clients must send.")
@click.option("--rate-limit", type=float, default=0.0, help="Requests per second; above it 429 with Retry-After.")
@click.option("--error-every", type=int, default=0, metavar="N", help="Each Nth valid request goes wrong.")
@click.option(
    "--error-mode",
    type=click.Choice(get_args(ErrorMode)),
    default="before",
    show_default=True,
    help="500 before a call is made, 500 after, or after it drop the connection.",
)
@click.option("--latency-ms", type=float, default=0.0, help="Hold back every answer.")
@click.option("--slow-every", type=int, default=0, metavar="N", help="Hold back each Nth answer by --slow-ms.")
@click.option("--slow-ms", type=float, default=0.0)
@click.option("--unanswered-every", type=int, default=0, metavar="N", help="Nobody picks up at each Nth call.")
@click.option("--refused-number", default="", help="A number that is not to be called.")
@click.option("--busy", is_flag=True, help="All lines are taken: batches are accepted, and their calls wait.")
@click.option("--reserved-lines", type=int, default=0, help="Of 20, for calls that come in.")
@click.option("--changing-lines", type=int, default=0, help="Of a busy account's: between two calls.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the URL there once it listens; removed at the end.",
)
def main(port: int, api_key: str, ready_file: Path | None, **faults: Any) -> None:
    """A local stand-in for Retell's API, until SIGTERM or Ctrl-C.

    Calls are recorded, not made. Faults can also be set while it runs: PUT /_faults.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not api_key.isascii() or not api_key.strip():
        raise click.BadParameter("must be some ASCII characters", param_hint="'--api-key'")
    try:
        stand_in = StandIn(api_key, port=port, faults=Faults(**faults))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        with stand_in:
            _announce(stand_in, ready_file)
            stop.wait()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"Retell stand-in, {error.filename or f'port {port}'}: {error.strerror or error}"
        ) from error


def _announce(stand_in: StandIn, ready_file: Path | None) -> None:
    """Say where it listens. The file is there with its whole content, or not at all."""
    if ready_file is not None:
        unfinished = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
        unfinished.write_text(stand_in.url + "\n")
        unfinished.replace(ready_file)
    print(f"Retell stand-in on {stand_in.url} (API key {stand_in.api_key})", flush=True)


if __name__ == "__main__":
    main(prog_name="python -m seeds.retell_stand_in")
