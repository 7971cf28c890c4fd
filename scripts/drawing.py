"""Draws with matplotlib, which is in the extra ``plot``: the option that names the file, and the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


def _checked(context: click.Context, parameter: click.Parameter, output: Path | None) -> Path | None:
    if output is not None and output.suffix not in (".svg", ".png"):
        raise click.BadParameter(f"{output} ends neither in .svg nor in .png", param_hint="'--output'")
    return output


output_option = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), callback=_checked,
    help="Draw into this .svg or .png file.",
)  # fmt: skip


@contextmanager
def drawing(output: Path, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure of that size in inches, saved at the end of the block. Raises `click.ClickException`."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError:
        raise click.ClickException("drawing needs matplotlib: pip install 'rqmem[plot]'") from None
    matplotlib.rcParams.update({"svg.hashsalt": "rqmem", "font.size": 8, "axes.spines.top": False})
    figure = pyplot.figure(figsize=(width, height), layout="constrained")
    yield figure
    try:
        figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None, dpi=110)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from None
    pyplot.close(figure)
    click.echo(f"\ndrawn into {output}")
