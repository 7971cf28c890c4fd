"""A proxy in front of a real Redis that answers some commands with an error line of the test's choice.

For replies that a server cannot be made to give, and to refuse at random. As a server does: what is refused within a
transaction has EXEC refused too.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit

from redis import Redis

Command = list[bytes]
Refuse = Callable[[Command], str | None]
_SUBSCRIBES = (b"SUBSCRIBE", b"PSUBSCRIBE")
WRITES = frozenset(
    b"HSET HSETNX SADD ZADD LPUSH RPUSH BLMOVE LMOVE BLPOP LPOP SET DEL EVALSHA EVAL HINCRBY HINCRBYFLOAT HDEL SREM "
    b"ZREM LREM EXPIRE PEXPIRE PERSIST XADD SETRANGE LTRIM UNLINK PUBLISH".split()
)


def writes(line: str) -> Refuse:
    """Refuse all that changes something, with that line."""
    return lambda command: line if command[0].upper() in WRITES else None


def everything(line: str) -> Refuse:
    return lambda command: line


class RefusingProxy:
    """Listens on loopback; each connection to it is one to the server at ``url``.

    Attributes:
        refuse: says with which line a command is refused, if it is; None: nothing is.
        refused: how many commands were.
        hold: called before a command goes on to the server, which waits for it.
        lose: says of which commands the reply is lost: the server has done them, then both connections end.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.refuse: Refuse | None = None
        self.refused = 0
        self.hold: Callable[[Command], object] | None = None
        self.lose: Callable[[Command], bool] | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connection(self) -> Redis:
        """Through it."""
        return Redis.from_url(self.url)

    def cut(self) -> None:
        """End all connections."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client, self._connect() as server:
            self._open |= {client, server}
            try:
                self._pass(client, server)
            finally:
                self._open -= {client, server}

    def _connect(self) -> socket.socket:
        if self._target.scheme == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target.path)
            return server
        return socket.create_connection((self._target.hostname, self._target.port))

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        asked, answered = client.makefile("rb"), server.makefile("rb")
        aborted = within = False
        while True:
            raw, command = _read_command(asked)
            name = command[0].upper()
            line = self.refuse(command) if self.refuse is not None else None
            if name == b"EXEC" and aborted:
                server.sendall(b"*1\r\n$7\r\nDISCARD\r\n")
                _read_reply(answered)
                client.sendall(b"-EXECABORT Transaction discarded because of previous errors.\r\n")
            elif line is not None and name not in (b"EXEC", b"MULTI", b"DISCARD"):
                self.refused += 1
                aborted = aborted or within
                client.sendall(f"-{line}\r\n".encode())
                continue
            else:
                if self.hold is not None:
                    self.hold(command)
                server.sendall(raw)
                if name in _SUBSCRIBES:
                    threading.Thread(target=_copy, args=(answered, client), daemon=True).start()
                    _copy(asked, server)
                    return
                reply = _read_reply(answered)
                if self.lose is not None and self.lose(command):
                    return
                client.sendall(reply)
            within = name == b"MULTI" or (within and name not in (b"EXEC", b"DISCARD"))
            aborted = aborted and within


@contextmanager
def refusing(url: str) -> Iterator[RefusingProxy]:
    proxy = RefusingProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()


def _copy(source: BinaryIO, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.read1(65536):  # type: ignore[attr-defined]
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def _line(file: BinaryIO) -> bytes:
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    return line


def _bulk(file: BinaryIO, line: bytes) -> bytes:
    """What follows a line with a length: that, and the end of line."""
    length = int(line[1:])
    return file.read(length + 2) if length >= 0 else b""


def _read_command(file: BinaryIO) -> tuple[bytes, Command]:
    raw, command = _line(file), []
    for _ in range(int(raw[1:])):
        line = _line(file)
        text = _bulk(file, line)
        raw += line + text
        command.append(text[:-2])
    return raw, command


def _read_reply(file: BinaryIO) -> bytes:
    """One reply of RESP2 or RESP3, with all that is in it."""
    raw = line = _line(file)
    kind = line[:1]
    if kind in b"$=!":
        return raw + _bulk(file, line)
    items = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}.get(kind, 0) * max(
        0, int(line[1:]) if kind in b"*~>%|" else 0
    )
    for _ in range(items + (kind in b">|")):  # those two come before the reply itself
        raw += _read_reply(file)
    return raw
