"""When alerts are sent: how many messages a minute, how many alerts in one, when a failed one is tried again. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MESSAGES_A_MINUTE = 20
PAUSES_SECONDS = (5.0, 15.0, 30.0, 75.0, 175.0)
"""Before the second try, the third, …: six tries within five minutes."""

WORTH_SENDING_SECONDS = 3600.0
"""Older alerts are not sent; `rqmem alerts` shows them."""


def pause_after(tries: int) -> float | None:
    """Seconds until a message that failed ``tries`` times (1 or more) is tried again; None: never."""
    return PAUSES_SECONDS[tries - 1] if tries <= len(PAUSES_SECONDS) else None


def to_send(waiting: int, sent_at: Sequence[float], now: float) -> int:
    """How many of the waiting alerts the next message holds; 0: none may go now.

    Usually one. The last message that the minute allows holds all waiting alerts, so that none waits for long.

    Args:
        sent_at: when the last messages were sent, at least `MESSAGES_A_MINUTE` of them if there were that many.
    """
    left = MESSAGES_A_MINUTE - sum(now - at < 60 for at in sent_at)
    if waiting == 0 or left <= 0:
        return 0
    return waiting if left == 1 else 1


def may_send_at(sent_at: Sequence[float], now: float) -> float:
    """The moment from which `to_send` lets the next message go."""
    recent = sorted(at for at in sent_at if now - at < 60)
    return now if len(recent) < MESSAGES_A_MINUTE else recent[-MESSAGES_A_MINUTE] + 60
