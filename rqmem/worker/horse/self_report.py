"""The horse's part of a snapshot: when its worker asks by a signal, it says where it is and what it holds.

The same signal has it end a capture that has grown too large (`rqmem.worker.profiling`).

Runs in the horse's main thread between two steps of whatever runs there: a job, RQ's commit, nothing. So it raises
nothing, leaves nothing behind, and takes little: no variable of a frame is touched (reading them is seen by the job
before Python 3.13), and objects are listed only where that fits well below the ceiling.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from rqmem.profiling.snapshots import Inside
from rqmem.store import codec
from rqmem.units import MB
from rqmem.worker import profiling
from rqmem.worker.execution import Phase
from rqmem.worker.horse import object_kinds, user_code
from rqmem.worker.horse.source_lines import line_of_user_code
from rqmem.worker.horse.user_code import SNAPSHOT_SIGNAL
from rqmem.worker.shared_memory import SharedPage

_MOST_FRAMES, _MOST_THREADS, _LONGEST_LINE = 40, 10, 250
_ROOM_FRACTION = 4  # of what is left below the ceiling, for the list of objects
_MOST_LIST_BYTES = 32 * MB
_POINTER_BYTES = 8
_MAY_RAISE = (user_code.BREACH_SIGNAL, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)

_page_of: Callable[[], SharedPage | None] | None = None
_answering = False


def install(page_of: Callable[[], SharedPage | None]) -> None:
    """Before each job: the one before may have left its own handler."""
    global _page_of
    _page_of = page_of
    _signal.signal(SNAPSHOT_SIGNAL, _on_snapshot_signal)
    _signal.siginterrupt(SNAPSHOT_SIGNAL, False)


def _on_snapshot_signal(number: int, frame: FrameType | None) -> None:
    global _answering
    page = _page_of() if _page_of is not None else None
    if page is not None and page.capture_unwanted and not page.capture_ended:
        profiling.stop(page)
    if page is None or _answering or page.snapshot_told == page.snapshot_wanted:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _MAY_RAISE)  # their exceptions come right after
        _answering = True
        wanted = page.snapshot_wanted
        page.snapshot_json = ""
        page.snapshot_json = codec.to_json(_inside(page, frame))
        page.snapshot_told = wanted
    finally:
        _answering = False
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _inside(page: SharedPage, frame: FrameType | None) -> Inside:
    around = "no job" if page.state.phase is Phase.ORDERED else "RQ's code around a job"
    doing = "the job's code" if page.in_user_code else around
    stack, threads = stack_of(frame), _other_threads()
    room = max(0, page.ceiling_bytes - page.usage_bytes) // _ROOM_FRACTION
    if _POINTER_BYTES * sys.getallocatedblocks() > min(room, _MOST_LIST_BYTES):
        return Inside(doing, stack, threads, note="too many objects to list them within what is left of the ceiling")
    kinds = object_kinds.kinds_by_now()
    return Inside(doing, stack, threads, kinds, "" if kinds else "none that the garbage collector sees")


def stack_of(frame: FrameType | None) -> list[str]:
    """``line:function:path`` from the innermost frame outwards."""
    lines: list[str] = []
    while frame is not None and len(lines) < _MOST_FRAMES:
        lines.append(f"{frame.f_lineno}:{frame.f_code.co_name}:{frame.f_code.co_filename}"[:_LONGEST_LINE])
        frame = frame.f_back
    return lines


def _other_threads() -> list[tuple[str, str]]:
    names = {thread.ident: thread.name for thread in list(threading._active.values())}  # type: ignore[attr-defined]
    main = threading.main_thread().ident
    frames = [(ident, frame) for ident, frame in sys._current_frames().items() if ident != main]
    return [
        (names.get(ident, str(ident))[:50], line_of_user_code(frame)[:_LONGEST_LINE])
        for ident, frame in frames[:_MOST_THREADS]
    ]
