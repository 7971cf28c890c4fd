"""Which Redis, and which classes of RQ, ``enqueue`` and ``progress`` use if the call names none.

The first of these that there is: what `use` was given; in a Django project, what ``RQ_QUEUES`` says of the queue;
inside a job, the job's; what the environment names; the embedded server of this directory, if it runs. No server is
started: jobs in a private one, started by a web process, would be seen by no worker.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rqmem.errors import ConfigError, RedisUnavailable
from rqmem.text import did_you_mean
from rqmem.values import dataclass

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.rq_names import Job, Queue


@dataclass(frozen=True)
class Defaults:
    """What a project has named. None: nothing."""

    connection: Redis | None = None
    queue_class: type[Queue] | None = None
    serializer: Any = None
    job_class: type[Job] | None = None


_used = Defaults()


def use(
    *,
    connection: Redis | None = None,
    queue_class: type[Queue] | str | None = None,
    serializer: Any = None,
    job_class: type[Job] | str | None = None,
) -> None:
    """Name, once per project, what ``enqueue`` and ``progress`` use where a call names nothing. Redis is not asked.

    Args:
        connection: a `redis.Redis`, with replies as bytes.
        queue_class, job_class: RQ's or subclasses, or their dotted paths.
        serializer: as RQ takes it: ``"json"``, ``"pickle"``, a dotted path, or what has ``dumps`` and ``loads``.

    What a call does not name stays as it was.

    Raises:
        ConfigError: one of them cannot be used; nothing is changed then.
    """
    global _used
    from rqmem import named_code
    from rqmem.rq_names import Job, Queue

    named = {
        "connection": _checked_connection(connection),
        "queue_class": _checked_class("queue_class", queue_class, Queue),
        "serializer": None if serializer is None else named_code.serializer(serializer, "rqmem.use: serializer"),
        "job_class": _checked_class("job_class", job_class, Job),
    }
    _used = replace(_used, **{name: value for name, value in named.items() if value is not None})


def by_name(name: str, connection: Any = None, serializer: Any = None) -> Queue:
    """The queue of that name by the defaults, or by what the call names. Raises `ConfigError`, `RedisUnavailable`."""
    from rqmem.rq_names import Queue, get_current_job

    used = _used
    serializer = used.serializer if serializer is None else serializer
    if connection is None and used.connection is None and _in_django_project():
        return _queue_of_django(name, used, serializer)
    if connection is None and used.connection is None and (job := get_current_job()) is not None:
        connection, serializer = job.connection, job.serializer if serializer is None else serializer
    if connection is None:
        connection = default_connection()
    queue_class = used.queue_class or Queue
    return queue_class(name, connection=connection, serializer=serializer, job_class=used.job_class)


def resolved_queue(queue: Any, who: str, connection: Any, serializer: Any) -> Queue:
    """A `rq.Queue` as it is, or the one of that name, as `by_name` makes it. ``who``: for the error's text."""
    from rqmem.rq_names import Queue

    if isinstance(queue, Queue):
        return queue
    if not isinstance(queue, str) or not queue.strip():
        raise ConfigError(
            f"{who}: {queue!r} is not a queue; the first positional argument of enqueue is "
            f"the queue's name, arguments of handle are best given by name"
        )
    if connection is not None:
        from rqmem.connection.connect import in_bytes

        connection = in_bytes(connection)
    return by_name(queue, connection, serializer)


def default_connection() -> Redis:
    """The Redis where a call names none, tried. Raises `ConfigError`, `RedisUnavailable`."""
    from rqmem.connection import connect, embedded
    from rqmem.rq_names import get_current_job

    if _used.connection is not None:
        return _used.connection
    if _in_django_project():
        return _queue_of_django("default", _used, None).connection
    if (job := get_current_job()) is not None:
        return job.connection
    if connect.choose_url() is None and embedded.status() is None:
        raise RedisUnavailable(
            "no Redis is named, and the embedded one of this directory does not run: call rqmem.use(connection=...) "
            "once in your project, set RQMEM_REDIS_URL, or start a worker here ('rqmem worker')"
        )
    return connect.connect()


def _in_django_project() -> bool:
    """Whether this process has set up Django, with queues of django-rq."""
    conf = sys.modules.get("django.conf")
    return conf is not None and conf.settings.configured and hasattr(conf.settings, "RQ_QUEUES")


def _queue_of_django(name: str, used: Defaults, serializer: Any) -> Queue:
    """As `django_rq.get_queue`: its queue class decides when the job is enqueued, its timeout is the queue's."""
    queues = sys.modules["django.conf"].settings.RQ_QUEUES
    if name not in queues:
        hint = did_you_mean(name, queues, "add it there, or name one that is")
        raise ConfigError(f"queue {name!r} is not in RQ_QUEUES ({', '.join(queues)}): {hint}")
    from django_rq import get_queue

    return get_queue(name, queue_class=used.queue_class, job_class=used.job_class, serializer=serializer)


def _checked_connection(connection: Any) -> Any:
    from redis import Redis

    if connection is None:
        return None
    if not isinstance(connection, Redis):
        raise ConfigError(
            f"rqmem.use(connection={type(connection).__name__}): give a redis.Redis, as redis.Redis.from_url makes it"
        )
    if connection.get_encoder().decode_responses:
        raise ConfigError("rqmem.use(connection=...) has decode_responses=True: RQ needs replies as bytes")
    return connection


def _checked_class(name: str, given: Any, base: type) -> Any:
    from rqmem import named_code

    found = named_code.attribute(given, f"rqmem.use: {name} {given!r}") if isinstance(given, str) else given
    if found is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"rqmem.use({name}={given!r}) is no subclass of RQ's {base.__name__}")
    return found
