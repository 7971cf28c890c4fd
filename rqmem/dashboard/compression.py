"""Sends static files and histories compressed: half of the first visit's bytes. Nothing else, since pages have tokens.

A page that has a secret and repeats what its URL says must not be compressed: its length would tell of the secret.
"""

from __future__ import annotations

import gzip

from flask import Flask, Response, request

_COMPRESSED = ("static", "live.history")
_LEAST_BYTES = 1000


def add_to(app: Flask) -> None:
    kept: dict[str, bytes] = {}  # static files, each once

    def compressed(response: Response) -> Response:
        if request.endpoint not in _COMPRESSED or response.status_code != 200:
            return response
        response.headers["Vary"] = "Accept-Encoding"
        if not request.accept_encodings["gzip"]:
            return response
        response.direct_passthrough = False
        data = response.get_data()
        if len(data) < _LEAST_BYTES:
            return response
        if request.endpoint == "static":
            made = kept.get(request.path) or kept.setdefault(request.path, gzip.compress(data, mtime=0))
        else:
            made = gzip.compress(data, compresslevel=4)
        response.set_data(made)
        response.headers["Content-Encoding"] = "gzip"
        return response

    app.after_request(compressed)
