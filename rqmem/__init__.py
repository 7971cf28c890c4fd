"""rqmem: memory-safe background jobs for Python on RQ.

Processes::

    app code -- enqueue --> Redis <-- rq-dashboard, rqmem's commands
                            ^    ^
             claim, beat,   |    |  take, run, commit (RQ's own perform_job)
             outcome of     |    |
             breaches  MemoryWorker -- shared page --> horse -- what it starts
                            |                            ^
                            +-- meters, stops, signals, kills (the whole tree)

Reading order: `units`, `errors`, `config`, `events` (values) -> `policy` (decisions, pure) -> `memory` (reading
``/proc``, cgroups), `settings` (a program's configuration), `journal` (Redis), `log`, `alerts` (sending them) ->
`sources`, `job` (what jobs use) and `runtime` -> `doctor`, `status`, `inspection`, `monitor`, `reporting`, `exporter`
(looking) -> `cli`; `testing` is for users' tests.

In `runtime`: ``watcher`` keeps the ceiling, ``kernel`` has the kernel keep it too, ``verdict`` and ``breach`` say
what becomes of a job, ``recovery`` and ``mending`` what becomes of what others left, ``recorder`` what is remembered
(the horse tells it over the ``tape``), ``life``, ``worker``, ``in_horse`` are `MemoryWorker` in three layers, above
``patient`` (a Redis that is away) and RQ's own Worker; ``hooking`` calls the hooks of plugins (`hooks`), of which
`integrations` come with rqmem, and ``listening`` those that hear of events. In `job`: ``mixin`` is what jobs see,
``context`` reads memory for it, ``stage`` and ``chunks`` go on where it stopped, ``children`` and ``split`` share it
out. In `journal`: ``writer``, ``reader``, ``ledger`` are what running jobs need; ``history_*`` and ``alert_*`` may be
forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rqmem.connections import connect
    from rqmem.job.defaults import use
    from rqmem.job.functions import current_memory, memory_aware
    from rqmem.job.mixin import MemoryAwareJob
    from rqmem.runtime.worker import MemoryWorker

__version__ = "0.1.0"
__all__ = ["MemoryAwareJob", "MemoryWorker", "connect", "current_memory", "memory_aware", "use"]

_HOMES = {
    "MemoryAwareJob": "rqmem.job.mixin",
    "MemoryWorker": "rqmem.runtime.worker",
    "connect": "rqmem.connections",
    "current_memory": "rqmem.job.functions",
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
