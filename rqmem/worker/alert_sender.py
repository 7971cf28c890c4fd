"""The worker's sender of alerts, a process next to it. Alerts wait in the journal: one that is dead loses none."""

from __future__ import annotations

import contextlib
import logging
import socket

from redis import Redis
from redis.exceptions import RedisError

from rqmem.config.settings import Config
from rqmem.errors import ConfigError
from rqmem.store.retrying import connection_with_short_timeout
from rqmem.worker.helper_process import HelperProcess

_READY_SECONDS = 30.0
_ANSWER_SECONDS = 5.0
_READY, _LONGEST_REASON = b"ready", 4096
_log = logging.getLogger("rqmem.alerts")


class SenderProcess(HelperProcess):
    """One worker's sender. It tells the worker one thing: that it is ready, or why it cannot send."""

    what, again_seconds = "the sender of alerts", 60.0

    def __init__(self, config: Config, connection: Redis, worker: str) -> None:
        super().__init__(worker)
        self._config = config
        self._connection = connection

    @staticmethod
    def wanted(config: Config) -> bool:
        return config.journal_enabled and bool(config.alert_urls or config.alert_urls_file)

    def wait_until_ready(self) -> None:
        """Until no alert can be missed. Raises `ConfigError` where it cannot send to its URLs; it has ended then."""
        said = self._said(_READY_SECONDS)
        if said not in (b"", _READY):
            self.stop()
            raise ConfigError(said.decode(errors="replace"))
        if not said:
            _log.warning("worker %s: the sender of alerts is not ready; alerts wait for it in Redis", self._worker)

    def died(self) -> None:
        said = self._said(0)
        if said in (b"", _READY):
            super().died()
        else:
            _log.error("worker %s: alerts are not sent: %s", self._worker, said.decode(errors="replace"))
            self.stop()

    def serve(self, end: socket.socket) -> None:
        from rqmem.alerts.addresses import addresses
        from rqmem.alerts.sender import Sender
        from rqmem.alerts.service import keep_others_quiet, services

        keep_others_quiet()
        try:
            found = addresses(self._config)
            ready = services(found)
        except ConfigError as error:
            end.send(str(error).encode()[:_LONGEST_REASON])
            return
        sender = Sender(connection_with_short_timeout(self._connection, _ANSWER_SECONDS), found, ready, self._worker)
        try:
            sender.start()
        except RedisError as error:
            _log.error("worker %s: the sender of alerts cannot use Redis: %s", self._worker, error)
            return
        end.send(_READY)
        end.recv(1)
        sender.stop()

    def _said(self, seconds: float) -> bytes:
        """What it tells within that time; empty: nothing, since it takes long or has died."""
        if self._end is not None:
            self._end.settimeout(seconds)
            with contextlib.suppress(OSError):
                return self._end.recv(_LONGEST_REASON)
        return b""
