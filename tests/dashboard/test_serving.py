"""Our own server, with a stream that goes on for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.request import urlopen

from flask import Flask, Response

from rqmem.dashboard.serving import DashboardServer

LOOK = b"x" * 20_000
LOOKS = 400


def test_a_viewer_makes_the_server_keep_little_of_what_it_has_sent() -> None:
    app, sent, read, kept = Flask("stream"), threading.Semaphore(0), threading.Semaphore(0), []

    def looks() -> Iterator[bytes]:
        for _ in range(LOOKS):
            yield LOOK
            sent.release()
            read.acquire()

    app.add_url_rule("/", view_func=lambda: Response(looks()))
    server = DashboardServer(app, "127.0.0.1", 0)
    threading.Thread(target=server.run, daemon=True).start()
    with urlopen(server.url) as stream:
        for _ in range(LOOKS):
            sent.acquire()
            assert stream.read(len(LOOK)) == LOOK
            channels = [each for each in server._server._map.values() if hasattr(each, "outbufs")]
            buffers = [buffer for channel in channels for buffer in channel.outbufs]
            kept.append(sum(len(each.getfile().getbuffer()) for each in buffers))
            read.release()
    server.close()
    assert max(kept) < 20 * len(LOOK)
