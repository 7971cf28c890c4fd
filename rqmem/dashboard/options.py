"""How a dashboard was asked to be: one frozen value. No I/O but reading the file of the password."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from flask import Request

from rqmem import own_files
from rqmem.errors import ConfigError
from rqmem.values import dataclass, field

Access = Literal["read", "act"]
Login = Callable[["Request"], Access | None]

FEWEST_CHARACTERS = 12
"""Of a password, a token and a secret."""


@dataclass(frozen=True)
class Options:
    """Attributes:
    read_only: no actions for anybody.
    hide_arguments: no arguments of jobs on any page.
    login: what the sender of a request may do; None: the password decides, or without one everybody may do all.
    password: of the login form; empty: there is none.
    token: lets programs act, as ``Authorization: Bearer``; empty: none does.
    secret: signs cookies. Processes that serve the same people need the same.
    own_server: it is served by our own server, which has threads enough for pages that stay connected.
    with_rq_dashboard: rq-dashboard is mounted under ``/rq/``.
    profile_dir: where workers on this host keep profiles, for flame graphs; None: there are none.
    """

    read_only: bool = False
    hide_arguments: bool = False
    login: Login | None = None
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    secret: str = field(default_factory=secrets.token_hex, repr=False)
    own_server: bool = False
    with_rq_dashboard: bool = False
    profile_dir: Path | None = None

    @property
    def open(self) -> bool:
        """Nobody is asked who they are."""
        return self.login is None and not self.password


def from_environ(environ: Mapping[str, str], **given: Any) -> Options:
    """These options, with the password, the token and the secret that the environment names.

    Raises:
        ConfigError: one of them is too short, or the file of the password cannot be read.
    """
    found = {
        "password": _password(environ),
        "token": environ.get("RQMEM_DASHBOARD_TOKEN", ""),
        "secret": environ.get("RQMEM_DASHBOARD_SECRET", ""),
    }
    for name, text in found.items():
        if text and len(text) < FEWEST_CHARACTERS:
            variable = f"RQMEM_DASHBOARD_{name.upper()}"
            raise ConfigError(
                f"{variable} has {len(text)} characters: give at least {FEWEST_CHARACTERS}, for instance of "
                "'python3 -c \"import secrets; print(secrets.token_urlsafe())\"'"
            )
    named: dict[str, Any] = {name: text for name, text in found.items() if text}
    return Options(**given, **named)


def _password(environ: Mapping[str, str]) -> str:
    if path := environ.get("RQMEM_DASHBOARD_PASSWORD_FILE", ""):
        try:
            own_files.must_end(Path(path))
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"RQMEM_DASHBOARD_PASSWORD_FILE {path!r} cannot be read: {error}") from None
        if not text:
            raise ConfigError(f"RQMEM_DASHBOARD_PASSWORD_FILE {path!r} is empty: write the password into it")
        return text
    return environ.get("RQMEM_DASHBOARD_PASSWORD", "")
