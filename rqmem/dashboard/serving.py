"""Our own server: waitress, in threads, on loopback unless there is a password."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from flask import Flask

from rqmem import words
from rqmem.dashboard.options import Options
from rqmem.dashboard.security import is_loopback
from rqmem.errors import ConfigError
from rqmem.measure import trim

THREADS = 64
_SENT_BYTES = 65_536
"""What a connection may keep of what it has sent already: for each viewer of Live, waitress alone keeps up to 16 MB."""


def on_loopback(address: str) -> bool:
    """Whether only this machine reaches that address."""
    return is_loopback(_in_url(address))


def check(host: str, options: Options) -> None:
    """Raise `ConfigError` where strangers could reach a dashboard without a password."""
    if options.open and not on_loopback(host):
        raise ConfigError(
            f"--host {host} is reached by others: set RQMEM_DASHBOARD_PASSWORD (or RQMEM_DASHBOARD_PASSWORD_FILE), "
            "or keep 127.0.0.1 and use an SSH tunnel"
        )


def settle(app: Flask) -> None:
    """Do now what the first visitor of a page would wait for.

    All templates are read. What is there by now stays for as long as the process, so the garbage collector passes over
    it no more: that takes as long as a page. It collects less often, too: a page of a month makes 30,000 objects, and
    all of them stay or go without it.
    """
    for file in (Path(app.root_path) / str(app.template_folder)).glob("*.html"):  # a loader may not know all its names
        app.jinja_env.get_template(file.name)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class DashboardServer:
    """A server that listens. Raises `ConfigError` for an address that cannot be used. ``port`` 0: any free one."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        from waitress.server import create_server

        trim.share_one_heap()
        try:
            self._server: Any = create_server(
                app, host=host, port=port, threads=THREADS, ident=None, clear_untrusted_proxy_headers=True,
                channel_request_lookahead=1, outbuf_high_watermark=_SENT_BYTES,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise ConfigError(words.cannot_listen(error, host, port, "dashboard")) from None
        ports = getattr(self._server, "effective_listen", None) or [(host, self._server.effective_port)]
        self.url = f"http://{_in_url(host)}:{ports[0][1]}/"

    def run(self) -> None:
        """Answer, until `KeyboardInterrupt` or `SystemExit`."""
        self._server.run()

    def close(self) -> None:
        self._server.close()


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
