"""What a person must mend in a file is a `ConfigError`, which RQ does not retry: the file would be the same."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import CsvFile


@contextmanager
def no_retry_if_unreadable() -> Iterator[None]:
    """`SourceError` becomes `ConfigError`."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(str(error)) from error


def check_columns(path: str, needed: Sequence[str], optional: Sequence[str] = (), encoding: str = "utf-8") -> None:
    """Raise `ConfigError` unless the first record of a CSV file names the columns that are needed, and none twice."""
    records = CsvFile(path, encoding=encoding, has_header=False).items_after(None)
    names: list[str] = next((record for record, _ in records), [])
    twice = [name for name in (*needed, *optional) if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{path}: two columns are called {twice[0]!r}: which one counts? Rename the other")
    missing = [name for name in needed if name not in names]
    if missing:
        shown = ", ".join(repr(name[:40]) for name in names[:8]) or "none"
        near = difflib.get_close_matches(missing[0], names, n=1)
        hint = f"rename {near[0]!r} to {missing[0]!r}" if near else f"the first line must name {', '.join(needed)}"
        raise ConfigError(f"{path}: no column {missing[0]!r} among its columns ({shown}): {hint}")
