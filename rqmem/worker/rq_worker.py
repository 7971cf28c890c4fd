"""What several parts need of RQ's worker: its queues by name, itself over another connection, errors in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from redis import Redis

from rqmem.rq_names import Queue, Worker
from rqmem.store.guarded import Existing


def queue_of(worker: Worker, name: str, connection: Redis | None = None) -> Queue:
    """The queue of this name as the worker makes its own; by default over its connection."""
    return worker.queue_class(
        name,
        connection=connection or worker.connection,
        job_class=worker.job_class,
        serializer=worker.serializer,
        death_penalty_class=worker.death_penalty_class,
    )


class OnConnection:
    """RQ's worker over another connection, as `self` of one of RQ's own methods.

    Attributes that the method sets stay in this object. Methods that it calls are the worker's, on its own connection.
    """

    def __init__(self, worker: Worker, connection: Redis | Existing) -> None:
        self._worker = worker
        self.connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)


def own_methods(worker: Worker, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are overridden or replaced by code other than RQ's and rqmem's."""
    return [name for name in names if name in vars(worker) or not _is_known(type(worker), name)]


def _is_known(worker_class: type, name: str) -> bool:
    owner = next((each for each in worker_class.__mro__ if name in vars(each)), object)
    modules = owner.__module__, getattr(vars(owner).get(name), "__module__", None) or ""
    return all(module.partition(".")[0] in ("rq", "rqmem") for module in modules)


class OneLine(logging.Logger):
    """RQ's logger, but an error is logged as ``line`` instead of a traceback; an empty line: not at all."""

    def __init__(self, line: str) -> None:
        super().__init__("rq.worker", logging.ERROR)
        self._line = line

    def error(self, *args: object, **kwargs: Any) -> None:
        if self._line:
            logging.getLogger(self.name).error("%s", self._line)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
