"""The worker's sender of alerts: ``rqmem alerts deliver`` as a child process, begun before jobs run and after a death.

Alerts wait in the journal, so a sender that is dead for a while loses none. It is not of any job's tree: it is
started between two jobs only, and the worker counts it among the processes that were there before. It gets its URLs
and the worker's Redis by its environment, never by arguments, which anybody can see; it ignores SIGTERM and SIGINT,
which systemd and terminals send to all processes, since the worker decides; it ends when told to over its stdin, or
when its worker is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from typing import IO
from urllib.parse import quote, urlencode

from redis import Redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from rqmem.alerts.pipe import READY, REFUSED, heard
from rqmem.config.settings import Config
from rqmem.errors import ConfigError

_READY_SECONDS = 30.0
_DRAIN_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 300.0
_LONG_LIFE_SECONDS = 60.0
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_log = logging.getLogger("rqmem.alerts")


class SenderProcess:
    """One worker's sender. For the worker's main thread."""

    def __init__(self, config: Config, connection: Redis, worker: str) -> None:
        self._config = config
        self._connection = connection
        self._worker = worker
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.Queue[tuple[str, str]] = queue.Queue()
        self._pause = _FIRST_PAUSE_SECONDS
        self._began_at = self._again_at = 0.0
        self._useless = False

    @staticmethod
    def wanted(config: Config) -> bool:
        return config.journal_enabled and bool(config.alert_urls or config.alert_urls_file)

    @property
    def pid(self) -> int:
        """0: there is none now."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Begin it; it takes a second until it is ready. A Redis that cannot be named by a URL is said, once."""
        url = url_of(self._connection)
        if url is None:
            _log.warning("worker %s: alerts are not sent: this connection to Redis has no URL", self._worker)
            self._useless = True
            return
        environ = {**os.environ, "RQMEM_REDIS_URL": url, "RQMEM_ALERT_URLS": " ".join(self._config.alert_urls)}
        environ["RQMEM_ALERT_URLS_FILE"] = self._config.alert_urls_file or ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rqmem", "alerts", "deliver", "--name", self._worker, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, start_new_session=True,
        )  # fmt: skip
        self._began_at = time.monotonic()
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), name="rqmem-sender", daemon=True).start()

    def wait_until_ready(self) -> None:
        """Until no alert can be missed. Raises `ConfigError` where it cannot send to its URLs; it has ended then."""
        if self._process is None:
            return
        with contextlib.suppress(queue.Empty):
            word, text = self._said.get(timeout=_READY_SECONDS)
            if word == REFUSED:
                self.stop()
                raise ConfigError(text)
            if word == READY:
                return
        _log.warning("worker %s: the sender of alerts is not ready; alerts wait for it in Redis", self._worker)

    def tend(self) -> bool:
        """Between two jobs: begin it again if it has died, after a pause that grows. Whether a new one was begun."""
        process, now = self._process, time.monotonic()
        if self._useless or (process is not None and process.poll() is None):
            return False
        if process is not None:
            self._bury(process, now)
        if self._useless or now < self._again_at:
            return False
        self.start()
        return self._process is not None

    def stop(self) -> None:
        """Have it send what is there, for a few seconds, and end; by force if it does not."""
        process, self._process, self._useless = self._process, None, True
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is dead
            process.stdin.write("stop\n")
            process.stdin.close()
        try:
            process.wait(_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _bury(self, process: subprocess.Popen[str], now: float) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        self._process = None
        while not self._said.empty():
            word, text = self._said.get()
            if word == REFUSED:
                _log.error("worker %s: alerts are not sent: %s", self._worker, text)
                self._useless = True
                return
        pause, self._pause = self._pause, min(4 * self._pause, _LONGEST_PAUSE_SECONDS)
        if now - self._began_at > _LONG_LIFE_SECONDS:  # it was well; the next look may be long after this one
            pause, self._pause = 0.0, _FIRST_PAUSE_SECONDS
        self._again_at = now + pause
        _log.warning("worker %s: the sender of alerts has died (%s); another begins in %g s",
                     self._worker, _how(process.returncode), pause)  # fmt: skip

    def _listen(self, lines: IO[str]) -> None:
        """In a thread: log what it logs, keep its other words."""
        with lines:
            for line in lines:
                word, text = heard(line)
                level = logging.getLevelName(word)
                if isinstance(level, int):
                    _log.log(level, "%s", text)
                else:
                    self._said.put((word, text))
        self._said.put(("", ""))  # whoever waits need not wait on


def url_of(connection: Redis) -> str | None:
    """The URL by which another process reaches the same Redis, with its password; None: it has none (Sentinel, say)."""
    pool = connection.connection_pool
    kind, options = pool.connection_class, dict(pool.connection_kwargs)
    if options.get("credential_provider") is not None:
        return None
    user, password = options.get("username") or "", options.get("password") or ""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    database = options.get("db") or 0
    if kind is UnixDomainSocketConnection:
        return f"unix://{login}{quote(options['path'])}?db={database}"
    if kind not in (Connection, SSLConnection):
        return None
    host = options.get("host") or "localhost"
    place = f"[{host}]" if ":" in host else host
    address = f"{login}{place}:{options.get('port') or 6379}/{database}"
    if kind is Connection:
        return f"redis://{address}"
    tls = {name: options[name] for name in _TLS_OPTIONS if options.get(name) is not None}
    return f"rediss://{address}" + (f"?{urlencode(tls)}" if tls else "")


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
