"""Notes what a command does to jobs and queues, for ``rqmem.api.actions`` and the dashboard."""

from __future__ import annotations

import getpass
import socket
from typing import TYPE_CHECKING, Any

from rqmem.store import actions

if TYPE_CHECKING:
    from redis import Redis


def note(connection: Redis, what: actions.What, text: str, **about: Any) -> None:
    """Keep it with the name of the user and the machine. ``about``: other fields of `rqmem.store.actions.Action`."""
    actions.note(connection, actions.Action(what, _who(), "command line", text=text, **about))


def _who() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        name = "?"
    return f"{name}@{socket.gethostname()}"
