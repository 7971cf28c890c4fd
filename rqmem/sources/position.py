"""The cursor of what is counted off, and how it is noticed that the items before it are others now.

A list that a job makes again in each execution (the ids of a query, the names in a directory) may be another one then:
the job itself may have removed from it what it has done. The number of items done would skip that many others. So the
cursor that is saved also says which item was the last: by its value, or by its ``id`` if it is a record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from rqmem.errors import SourceChanged, SourceError
from rqmem.sources import typed_json
from rqmem.sources.contract import Cursor
from rqmem.values import dataclass


@dataclass(frozen=True)
class Position:
    """How many items are done. ``last``: which was the last; else ``length``: how many there were; None: not known."""

    done: int
    last: str | None = None
    length: int | None = None

    @classmethod
    def of(cls, cursor: Cursor) -> Position:
        """What `saved` gave, or a bare number. Raises `SourceError`."""
        found = cursor if isinstance(cursor, dict) else {"done": cursor}
        done = found.get("done")
        if isinstance(done, bool) or not isinstance(done, int) or done < 0:
            raise SourceError(f"cursor {cursor!r:.100} is no number of items")
        return cls(done, found.get("last"), found.get("of"))

    def saved(self, item: Any, length: int | None) -> Cursor:
        """As JSON, after ``item`` of that many."""
        if (last := mark_of(item)) is not None:
            return {"done": self.done, "last": last}
        return self.done if length is None else {"done": self.done, "of": length}

    def check(self, item: Any, length: int | None) -> None:
        """Raise `SourceChanged` unless ``item`` may be the last one done, of that many."""
        changed = self.last is not None and mark_of(item) not in (self.last, None)
        if changed or (self.length is not None and length is not None and length < self.length):
            raise other_items(self.done)


def other_items(done: int) -> SourceChanged:
    return SourceChanged(
        f"the items are others than before: item {done:,} is not the one that was done last, so some would be left out "
        "or done twice. Give a source that reads from a cursor (rqmem.sources), or the same items in each execution; "
        "or begin again from the start"
    )


def mark_of(item: Any) -> str | None:
    """By what an item is known again, also in another process and after it was changed; None: by nothing."""
    if isinstance(item, Mapping):
        item = item.get("id")
    elif isinstance(item, tuple):
        item = getattr(item, "id", None) if "id" in getattr(item, "_fields", ()) else None
    elif hasattr(item, "__dict__"):
        item = vars(item).get("id")  # never by an attribute that might run a query
    if item is None or isinstance(item, Mapping | list | tuple):
        return None
    try:
        text = json.dumps(typed_json.encode(item))
    except SourceError:
        return None
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
