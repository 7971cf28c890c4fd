"""``make dashboard``: rqmem's dashboard on the Redis that rqmem uses in this directory, on loopback only.

``--stock``: rq-dashboard as it is, without rqmem's guards.
"""

from __future__ import annotations

import os
import sys

import click

from rqmem.connection import connect, embedded
from scripts.harness import one_line_errors


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=9181, show_default=True)
@click.option("--stock", is_flag=True, help="rq-dashboard instead.")
def main(port: int, stock: bool) -> None:
    """Serve a dashboard until Ctrl-C."""
    with one_line_errors("dashboard"):
        connect.connect(announce=lambda line: click.echo(line, err=True))
        choice = connect.choose_url()
        url = choice.url if choice else embedded.start().url
    if not stock:
        os.execv(sys.executable, [sys.executable, "-m", "rqmem", "dashboard", "--port", str(port), "--url", url])
    from rq_dashboard.cli import main as rq_dashboard

    sys.argv = ["rq-dashboard", "--bind", "127.0.0.1", "--port", str(port), "--redis-url", url]
    rq_dashboard()


if __name__ == "__main__":
    main()
