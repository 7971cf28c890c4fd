"""The command: ``python -m seeds.retell_stand_in``."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from seeds.retell_stand_in.faults import ErrorMode, Faults
from seeds.retell_stand_in.server import DEFAULT_KEY, StandIn


def fault_options(command: Any) -> Any:
    """An option for each fault, as `Faults` declares it."""
    helps = get_type_hints(Faults, include_extras=True)
    for fault in reversed(fields(Faults)):
        choices = get_args(ErrorMode) if fault.name == "error_mode" else None
        kind: Any = click.Choice(choices) if choices else type(fault.default)
        name, about = f"--{fault.name.replace('_', '-')}", helps[fault.name].__metadata__[-1]
        options = {"type": kind, "is_flag": kind is bool, "show_default": bool(choices), "help": about}
        command = click.option(name, default=fault.default, **options)(command)
    return command


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option("--api-key", default=DEFAULT_KEY, show_default=True, help="The key that clients must send.")
@click.option(
    "--ready-file", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the URL there once it listens; removed at the end.",
)  # fmt: skip
@fault_options
def main(port: int, api_key: str, ready_file: Path | None, **faults: Any) -> None:
    """A local stand-in for Retell's API, until SIGTERM or Ctrl-C.

    Calls are recorded, not made.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not api_key.isascii() or not api_key.strip():
        raise click.BadParameter("must be some ASCII characters", param_hint="'--api-key'")
    try:
        stand_in = StandIn(api_key, port=port, faults=Faults.parse(faults))
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
    """Print where it listens, and write the file, whole or not at all."""
    if ready_file is not None:
        unfinished = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
        unfinished.write_text(stand_in.url + "\n")
        unfinished.replace(ready_file)
    print(f"Retell stand-in on {stand_in.url} (API key {stand_in.api_key})", flush=True)


if __name__ == "__main__":
    main(prog_name="python -m seeds.retell_stand_in")
