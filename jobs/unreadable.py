"""Files that cannot be read, as for RQ's Retry: there is no use in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rqmem.errors import ConfigError, SourceError


@contextmanager
def told_as_for_a_person_to_mend() -> Iterator[None]:
    """A file that cannot be read is not read better next time: `SourceError` becomes `ConfigError`, so no retries."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(str(error)) from error
