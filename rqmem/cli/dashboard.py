"""``rqmem dashboard``: the dashboard in a browser, by `rqmem.dashboard`."""

from __future__ import annotations

import os
import signal
import sys

import click

from rqmem import log
from rqmem.cli.terminal import redis_options, show, to_serve


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to answer on; others need a password.")
@click.option("--port", type=click.IntRange(0, 65535), default=9181, help="0: any that is free.")
@click.option("--read-only", is_flag=True, help="No cancel, retry, pause or resume.")
@click.option("--hide-arguments", is_flag=True, help="Show types of jobs without their arguments.")
@click.option("--with-rq-dashboard", is_flag=True, help="Also rq-dashboard, under /rq/; on loopback always.")
@redis_options
def dashboard(
    host: str, port: int, read_only: bool, hide_arguments: bool, with_rq_dashboard: bool, url: str | None
) -> None:
    """Serve the dashboard.

    It shows workers, jobs, queues and their memory, live, and cancels and
    retries jobs. On 127.0.0.1 it asks for no password. On any other address it
    starts only with one, of at least 12 characters, in
    RQMEM_DASHBOARD_PASSWORD or in the file RQMEM_DASHBOARD_PASSWORD_FILE.

    Redis need not answer yet. SIGTERM and Ctrl-C end it.
    """
    from rqmem.config.load import load
    from rqmem.dashboard import ANSWER_SECONDS
    from rqmem.dashboard.app import build
    from rqmem.dashboard.options import from_environ
    from rqmem.dashboard.serving import DashboardServer, check, on_loopback, settle
    from rqmem.profiling.directory import located

    log.configure("info", "text")
    options = from_environ(
        os.environ,
        read_only=read_only,
        hide_arguments=hide_arguments,
        own_server=True,
        with_rq_dashboard=with_rq_dashboard or on_loopback(host),
        profile_dir=located(load(os.environ, {}).config.profile_dir),
    )
    check(host, options)
    connection, where = to_serve(url, ANSWER_SECONDS)
    app = build(connection, where, options)
    server = DashboardServer(app, host, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    show(f"rqmem: the dashboard of {where} is at {server.url}; Ctrl-C ends it", err=True)
    try:
        settle(app)
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
