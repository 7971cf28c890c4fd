"""The settings that the environment holds. Pure: it takes the environment as an argument.

Promises: an unusable value raises `ConfigError`. So does an unknown ``RQMEM_*`` name that is nearly one of ours, since
a misspelt ceiling would be no ceiling. What Kubernetes and Docker set for a Service called rqmem is passed over. Any
other unknown name is one warning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from rqmem.config.settings import SETTINGS
from rqmem.errors import ConfigError

_log = logging.getLogger("rqmem.config.settings")

# Read elsewhere: the config file (config.load), the choice of Redis (connection.connect), the mark of a job's processes
# (worker.horse.user_code), what a worker that restarted itself was before (worker.restart), the dashboard's
# password and keys (dashboard.options).
_OTHER_NAMES = (
    "RQMEM_CONFIG", "RQMEM_REDIS_URL", "RQMEM_EXECUTION", "RQMEM_RESTARTED", "RQMEM_DASHBOARD_PASSWORD",
    "RQMEM_DASHBOARD_PASSWORD_FILE", "RQMEM_DASHBOARD_SECRET", "RQMEM_DASHBOARD_TOKEN",
)  # fmt: skip

# What Kubernetes sets for each Service and Docker for each link, here for those whose names begin with "rqmem".
_OF_SERVICES = re.compile(
    r"RQMEM(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))?|ENV_\w+)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://\S+")
_NEAR = 0.75  # alike by `difflib`, without what all names begin with


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Field of `rqmem.config.settings.Config` -> value, of the variables that are set. Raises `ConfigError`."""
    _check_names(environ)
    texts = {field: environ.get(setting.variable, "").strip() for field, setting in SETTINGS.items()}
    return {field: SETTINGS[field].parse(text, SETTINGS[field].variable) for field, text in texts.items() if text}


def _check_names(environ: Mapping[str, str]) -> None:
    ours = (*(setting.variable for setting in SETTINGS.values()), *_OTHER_NAMES)
    known = {name.removeprefix("RQMEM_"): name for name in ours if name.startswith("RQMEM_")}
    strange = []
    for name, value in environ.items():
        rest = name.removeprefix("RQMEM_")
        if rest == name or rest in known or _is_of_a_service(name, value):
            continue
        import difflib

        near = difflib.get_close_matches(rest, known, n=1, cutoff=_NEAR)
        near += [each for each in known if rest.startswith(f"{each}_") or (len(rest) > 2 and each.startswith(rest))]
        if near:
            raise ConfigError(f"environment variable {name} is not known: did you mean {known[near[0]]}?")
        strange.append(name)
    if strange:
        _warn_of(tuple(sorted(strange)))


def _is_of_a_service(name: str, value: str) -> bool:
    if _OF_SERVICES.fullmatch(name):
        return True
    if name.endswith("_PORT"):
        return _SERVICE_URL.fullmatch(value) is not None
    return name.endswith("_NAME") and value.startswith("/")  # of a link: /web/rqmem


@cache
def _warn_of(names: tuple[str, ...]) -> None:
    _log.warning(
        "environment: rqmem ignores %s, which it does not know; 'rqmem config' shows all settings", ", ".join(names)
    )
