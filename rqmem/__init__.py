"""rqmem: memory-safe background jobs for Python on RQ.

Processes::

    app code -- enqueue --> Redis <-- rq-dashboard, rqmem's commands
                            ^    ^
             claim, beat,   |    |  take, run, commit (RQ's own perform_job)
             outcome of     |    |
             breaches  MemoryWorker -- shared page --> horse -- what it starts
                            |                            ^
                            +-- meters, stops, signals, kills (the whole tree)

Reading order: `units`, `values`, `errors`, `events`, `config`, `text`, `words` (values) -> `policy` (decisions, pure)
-> `measure` (reading ``/proc`` and cgroups), `store` (Redis), `connection`, `log`, `alerts` (sending them) ->
`sources`, `job` (what jobs use) and `worker` -> `observe` (the read model; `api` is its public side) and `acting` (what
people do with jobs and queues) -> `show`, `live`, `prometheus`, `doctor`, `dashboard` (display) -> `cli`. `testing` is
for users' tests. `rq_seams` lists what all of it relies on in RQ; only `rq_names` imports RQ.

In `worker`, ``memory_worker`` is `MemoryWorker`: overrides of RQ's Worker, each of which hands over to a part.
``next_job`` takes a job or waits for one, ``supervisor`` runs one execution, ``execution`` has its states, ``watcher``
keeps the ceiling and ``kernel`` has the kernel keep it too. ``settlement`` and ``resume`` decide what becomes of a job,
``commit`` commits it, ``takeover`` and ``orphaned_children`` see to jobs that others left. ``recorder`` writes the
history; the horse sends it events over the ``event_ring``. The horse runs user code in ``horse.user_code`` and calls
hooks of plugins (`hooks`, `integrations`) in ``horse.hook_runner``. docs/internals.md has the processes, the states and
the paths.

In `job`, ``base`` is what jobs see, and ``run`` is one run of a job, with its ``ceiling``, its ``checkpoints`` and its
``chunk_progress``. ``chunks`` works in chunks, ``split`` decides whether to split, ``children`` makes child jobs, and
``gather`` comes when they have ended. ``tree`` cancels or repeats a job with its children.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rqmem._version import __version__ as __version__

if TYPE_CHECKING:
    from rqmem.connection.connect import connect
    from rqmem.job.base import MemoryAwareJob
    from rqmem.job.defaults import use
    from rqmem.job.enqueue_many import enqueue_many
    from rqmem.job.functions import current_memory, memory_aware
    from rqmem.worker.memory_worker import MemoryWorker
    from rqmem.worker.pool.memory_worker_pool import MemoryWorkerPool

__all__ = [
    "MemoryAwareJob", "MemoryWorker", "MemoryWorkerPool", "connect", "current_memory", "enqueue_many", "memory_aware",
    "use",
]  # fmt: skip

_HOMES = {
    "MemoryAwareJob": "rqmem.job.base",
    "MemoryWorker": "rqmem.worker.memory_worker",
    "MemoryWorkerPool": "rqmem.worker.pool.memory_worker_pool",
    "connect": "rqmem.connection.connect",
    "current_memory": "rqmem.job.functions",
    "enqueue_many": "rqmem.job.enqueue_many",
    "memory_aware": "rqmem.job.functions",
    "use": "rqmem.job.defaults",
}


if not TYPE_CHECKING:  # for type checkers a module with such a function has every name there is

    def __getattr__(name: str) -> Any:
        """The public names, each imported when first used."""
        if name not in _HOMES:
            raise AttributeError(f"module 'rqmem' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
