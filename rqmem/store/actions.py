"""What people did with jobs and queues: a stream with the last `KEPT_ACTIONS` entries. Written and read here.

Promises: an entry that Redis does not take is logged and undoes nothing: what was done is done.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Literal, cast

from redis import Redis
from redis.exceptions import RedisError

from rqmem.store import codec, keys
from rqmem.store.retrying import described
from rqmem.store.unreadable import readable
from rqmem.values import dataclass

KEPT_ACTIONS = 1000
_log = logging.getLogger("rqmem.actions")

What = Literal["cancel", "retry", "retry from start", "retry by filter", "delete", "pause", "resume", "restart"]
Surface = Literal["command line", "dashboard", "api"]


@dataclass(frozen=True)
class ActionRecord:
    """One of them.

    Attributes:
        at: epoch seconds.
        who: a name of the person, as far as it is known: of the user, or of the login.
        job_id, queue, job_type: what it was done to, or the filter; ``error``: of the filter. Empty: does not apply.
        text: the answer in one line.
        id: of its entry in the stream; sorts by time.
    """

    what: What
    who: str
    surface: Surface
    at: float = 0.0
    job_id: str = ""
    queue: str = ""
    job_type: str = ""
    error: str = ""
    count: int = 0
    text: str = ""
    id: str = ""


def note(connection: Redis, action: ActionRecord) -> None:
    """Keep an action that was done now."""
    text = json.dumps({**vars(action), "at": round(time.time(), 3)})
    try:
        connection.xadd(keys.ACTIONS, {"action": text}, maxlen=KEPT_ACTIONS, approximate=False)
    except RedisError as error:
        _log.warning(
            "%s by %s is done, and Redis did not take its record: %s", action.what, action.who, described(error)
        )


def read(connection: Redis, limit: int = 100, job_id: str = "") -> list[ActionRecord]:
    """The last ones, newest first; ``job_id``: only those that name this job."""
    asked = KEPT_ACTIONS if job_id else limit
    raw = cast("list[tuple[bytes, dict[bytes, bytes]]]", connection.xrevrange(keys.ACTIONS, "+", "-", asked))
    found = readable(_read, raw, keys.ACTIONS)
    return [each for each in found if job_id in ("", each.job_id)][:limit]


def _read(entry: tuple[bytes, dict[bytes, bytes]]) -> ActionRecord:
    name, fields = entry
    return codec.from_values(ActionRecord, {**json.loads(fields[b"action"]), "id": name.decode()})
