"""Turns errors of files that cannot be read into `ConfigError`, which RQ does not retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rqmem.errors import ConfigError, SourceError


@contextmanager
def no_retry_if_unreadable() -> Iterator[None]:
    """`SourceError` becomes `ConfigError`: a retry would read the same file, so a person has to mend it."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(str(error)) from error
