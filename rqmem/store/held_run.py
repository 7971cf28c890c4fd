"""The record of a memory-aware job's run under a lease, as long as Redis has none of it.

Most jobs of a lease end before anybody could look. Their record is written with their outcome, in one script. Until
then it stands on the shared page, from where the worker writes it if the job lasts, or its horse dies. A job that needs
the record in Redis (it splits, say) has it written at once.

Writes nothing itself. The script that writes a record (`rqmem.store.lease.show`) takes only a newer one.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol


class RecordSlot(Protocol):
    """Where another process finds it."""

    @property
    def wanted(self) -> bool:
        """Whether the worker has it written to Redis by now: what follows has to go there as well."""
        ...

    def write(self, data: bytes) -> bool:
        """False: there is no room for so much."""
        ...

    def clear(self) -> None: ...


class HeldRecord(NamedTuple):
    """What Redis is to have of the run.

    Attributes:
        text: JSON, for the scripts.
        results: of finished chunks, as `keys.results` has them.
    """

    text: str = ""
    results: tuple[bytes, ...] = ()


NO_RECORD = HeldRecord()


class HeldRun:
    """Of the job in hand; one for all jobs of a lease.

    Args:
        write: writes the record to Redis. Raises `RunTakenOver`.

    Attributes:
        held: False: Redis has the record, or there is none.
        figures: of the run that has ended well: `rqmem.job.run.JobRun.close`.
    """

    def __init__(self, slot: RecordSlot, write: Callable[[HeldRecord], None]) -> None:
        self._slot = slot
        self._write = write
        self.held = False
        self.next_job()

    def next_job(self) -> None:
        self.held = self._written = False
        self._fields: dict[str, Any] = {}
        self._results: list[bytes] = []
        self._version = 0
        self.figures: RunFigures | None = None

    def begin(self) -> None:
        """A run begins, whose record is held from now on."""
        self.held = True

    def hold(
        self, values: Mapping[str, Any], added: Mapping[str, float] | None = None, result: bytes = b"",
        *, last: bool = False,
    ) -> bool:  # fmt: skip
        """Set these fields, and add to the others. False: Redis has the record, so it is not held.

        ``last``: the job's code has ended, so that its outcome follows at once.
        """
        if not self.held:
            return False
        self._fields.update(values)
        for name, amount in (added or {}).items():
            self._fields[name] = self._fields.get(name, 0) + amount
        if result:
            self._results.append(result)
        self._version += 1
        fits = self._slot.write(marshal.dumps((self._version, self._fields, self._results)))
        if not fits or (self._slot.wanted and not last):
            self.write()
        return True

    def write(self) -> None:
        """Have Redis keep the record from now on."""
        if self.held:
            self._write(_record(self._version, self._fields, self._results))
            self.held, self._written = False, True
            self._slot.clear()

    def ended(self) -> bytes:
        """The record of a run that has ended well, for `rqmem.store.lease_commands.pack_finished`."""
        if not (self.held or self._written):
            return b""
        figures = self.figures or RunFigures()
        fields = {**self._fields, "finished": 1} if self.held else {"finished": 1}
        return json.dumps(
            {
                "version": self._version + 1, "fields": _flat(fields), "saved": self._written or self._slot.wanted,
                "items": figures.own_items, "peak": figures.peak_mb,
            }
        ).encode()  # fmt: skip


class RunFigures(NamedTuple):
    """Of a run that has ended well.

    Attributes:
        own_items: what it has finished, without what calls within chunks have.
        peak_mb: the highest usage seen.
    """

    own_items: int = 0
    peak_mb: float = 0.0
    chunks: int = 0
    items: int = 0
    largest_chunk: int = 0
    collections: int = 0
    freed_mb: float = 0.0
    needed_mb: float | None = None


def record_in(data: bytes) -> HeldRecord:
    """What stands in the slot."""
    return _record(*marshal.loads(data)) if data else NO_RECORD


def opening(fields: Mapping[str, Any]) -> bytes:
    """For `rqmem.store.lease_commands.pack_begins`."""
    return json.dumps(_flat(fields)).encode()


def _record(version: int, fields: Mapping[str, Any], results: list[bytes]) -> HeldRecord:
    return HeldRecord(json.dumps({"version": version, "fields": _flat(fields)}), tuple(results))


def _flat(fields: Mapping[str, Any]) -> list[str]:
    return [str(each) for pair in fields.items() for each in pair]
