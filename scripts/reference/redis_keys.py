"""Redis keys: what each holds and when it goes, as `rqmem.store.keys` has them."""

from __future__ import annotations

from rqmem.store.keys import DAY_SECONDS, PREFIX, TABLE, Key
from scripts.reference.markdown import cell, code, table

_CONFIGURED = {
    "pool:{pool}": "a few heartbeats (`RQMEM_HEARTBEAT`)",
    "alive:{worker}": "a few heartbeats (`RQMEM_HEARTBEAT`)",
    "host:{host}": "a few heartbeats (`RQMEM_HEARTBEAT`)",
    "alerts:quiet:{rule}:{job_type}": "an hour after `RQMEM_ALERT_COOLDOWN`",
}
_OCCASIONS = {
    "run ends": "the record of the run is forgotten",
    "job is done": "the job is done",
    "split is undone": "the split is undone",
    "story": "the story of the job is forgotten",
    "job type": "the job type is forgotten",
    "journal": "`rqmem journal clear`",
}


def page() -> str:
    rows = [
        (
            code(f"{PREFIX}:{key.template}"),
            key.type,
            cell(key.holds),
            _expiry(key),
            "; ".join(_OCCASIONS[each] for each in key.forgotten) or "-",
        )
        for key in TABLE
    ]
    return table(("key", "type", "holds", "expires after", "deleted when"), rows)


def _expiry(key: Key) -> str:
    if key.expires is False:
        return "never"
    if key.expires is True:
        return _CONFIGURED[key.template]
    days, rest = divmod(key.expires, DAY_SECONDS)
    return f"{days} days" if days and not rest else f"{key.expires} s"
