"""Jobs that use more memory than they may, each in its own way, to run against your own set-up.

Every one must end as failed with `MemoryLimitExceeded`, leave nothing behind, and let the next job run.
``ALL`` is the catalogue. They are for ceilings from 128 to 1024 MB and take none above 3 GB, so a machine
with that much to spare survives a ceiling that does not hold::

    from rq import Queue
    from rqmem.testing import adversaries

    for each in adversaries.ALL:
        queue.enqueue(each.path, **each.kwargs(256))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rqmem.testing.adversaries.native import (
    calm_then_burst,
    huge_pages,
    mapped_file_in_shm,
    memset_in_c,
    populated_mmap,
    shared_mmap,
    sqlite_query,
    unmapped_file_in_shm,
    unmapped_memfd,
)
from rqmem.testing.adversaries.objects import (
    blocks,
    dicts,
    growing_text,
    joined_generator,
    large_when_serialised,
    lists,
    long_sorted,
    numpy_arrays,
    one_block,
    product_in_c,
    slow_leak,
    small_objects,
    sorted_copies,
)
from rqmem.testing.adversaries.processes import (
    a_daemon,
    a_new_session,
    a_subprocess,
    another_program,
    beside_cpu_hogs,
    fork_bomb,
    four_threads,
    thread_pool,
)
from rqmem.testing.adversaries.stubborn import (
    bare_except,
    closes_all_files,
    finally_that_grows,
    gathered,
    grow_in_callback,
    ignores_every_signal,
    in_the_failure_callback,
    own_signal_handlers,
    stays_where_it_is,
    while_its_worker_is_terminated,
    while_redis_is_stopped,
)
from rqmem.testing.catalogue import Adversary, about


def _of(function: Callable[..., Any], **more: Any) -> Adversary:
    return Adversary(**about(function, __name__), **more)


def _past(ceiling_mb: int) -> dict[str, int]:
    """Past the ceiling and the reserve, and no further: this is real memory that a file holds."""
    return {"mb": ceiling_mb + 200}


def _in_steps(ceiling_mb: int) -> dict[str, int]:
    """Steps that bring it to the ceiling within seconds."""
    return {"step_mb": max(1, ceiling_mb // 256)}


ALL: tuple[Adversary, ...] = (
    *map(_of, (lists, dicts, small_objects, blocks, one_block)),
    _of(growing_text, kwargs=_in_steps),
    _of(slow_leak, kwargs=_in_steps),
    *map(_of, (sorted_copies, long_sorted, product_in_c, joined_generator)),
    _of(numpy_arrays, needs=("numpy",), step_mb=8),
    _of(large_when_serialised),
    _of(memset_in_c),
    _of(calm_then_burst, kwargs=lambda ceiling_mb: {"calm_mb": max(10, int(ceiling_mb * 0.75) - 16)}),
    *map(_of, (populated_mmap, huge_pages, shared_mmap, mapped_file_in_shm)),
    _of(unmapped_file_in_shm, kwargs=_past),
    _of(unmapped_memfd, kwargs=_past),
    _of(sqlite_query),
    _of(four_threads, unwinds=False),
    _of(thread_pool, unwinds=False),
    *map(_of, (a_subprocess, a_new_session, a_daemon)),
    _of(fork_bomb, unwinds=False),  # 63 of its 64 processes have no handler
    *map(_of, (beside_cpu_hogs, another_program)),
    *map(_of, (bare_except, stays_where_it_is, ignores_every_signal, own_signal_handlers)),
    *map(_of, (closes_all_files, finally_that_grows, gathered)),
    _of(in_the_failure_callback, on_failure=f"{__name__}.{grow_in_callback.__name__}"),
    _of(while_redis_is_stopped, meanwhile="redis stopped"),
    _of(while_its_worker_is_terminated, meanwhile="worker terminated"),
)
