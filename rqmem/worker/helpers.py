"""Children of the worker that are no horses: the sender of alerts, the process of event hooks, RQ's scheduler."""

from __future__ import annotations

from collections.abc import Iterator

from rqmem import events, hooks
from rqmem.rq_names import Worker
from rqmem.worker.alert_sender import SenderProcess
from rqmem.worker.event_listener import Listening
from rqmem.worker.scheduler import Scheduling
from rqmem.worker.worker_setup import Setup


class Helpers:
    """Those of one worker, for its main thread. RQ begins and ends the scheduler itself."""

    def __init__(self, worker: Worker, setup: Setup) -> None:
        self._worker = worker
        self._setup = setup
        self.scheduling = Scheduling(worker)
        self._sender: SenderProcess | None = None
        self._listening: Listening | None = None

    def start_sender(self) -> None:
        """Begin it where it is wanted. `wait_until_ready` waits for it."""
        if SenderProcess.wanted(self._setup.config):
            self._sender = SenderProcess(self._setup.config, self._worker.connection, self._setup.name)
            self._sender.start()

    def start_listening(self) -> None:
        """Begin the process of event hooks where a loaded plugin has some."""
        if hooks.listeners():
            self._listening = Listening(self._setup.name, self._setup.limit_mb)
            self._listening.start()

    def wait_until_ready(self) -> None:
        """Until no alert can be missed. Raises `ConfigError`."""
        if self._sender is not None:
            self._sender.wait_until_ready()

    def tell(self, event: events.Event) -> None:
        """Have event hooks called, from any thread; it does not wait."""
        if self._listening is not None:
            self._listening.tell(event)

    def tend(self) -> Iterator[int]:
        """Between two jobs: those that had died begin again; the pids of the new ones."""
        if self._listening is not None and self._listening.tend():
            yield self._listening.pid
        if self._sender is not None and self._sender.tend():
            yield self._sender.pid

    def pids(self) -> Iterator[int]:
        for each in (self.scheduling.process, self._sender, self._listening):
            if each is not None and each.pid:
                yield each.pid

    def stop(self) -> None:
        if self._sender is not None:
            self._sender.stop()
        if self._listening is not None:
            self._listening.stop()
