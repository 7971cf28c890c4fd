"""Times as people type them, for ``--since``."""

from __future__ import annotations

import re
from datetime import datetime

from rqmem.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_since(text: str, now: float, name: str = "--since") -> float:
    """The moment that ``text`` names, in epoch seconds; 0 where that is before 1970.

    Args:
        text: so long ago (``90s``, ``30m``, ``24h``, ``7d``, ``2w``), or a date or time in ISO form, in local time
            unless it says otherwise (``2026-08-06``, ``2026-08-06T10:30``, ``2026-08-06T10:30:00Z``).
        now: epoch seconds.
        name: of the option, for the error.

    Raises:
        ConfigError: it is neither, or lies ahead.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if ago:
        return max(0.0, now - float(ago[1]) * _UNITS[ago[2]])
    try:
        at = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip())).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"{name}={text!r}: give how long ago, as in 90s, 30m, 24h, 7d or 2w, or a date or time, as in "
            f"2026-08-06 or 2026-08-06T10:30"
        ) from None
    if at > now:
        raise ConfigError(f"{name}={text!r}: that lies ahead; give a time that has passed")
    return max(0.0, at)
