"""Job types as people name them, for ``--job``."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from rqmem.errors import UnknownName

_NAMED = 3  # in an error message


def one_of(text: str, known: Collection[str]) -> str:
    """The job type that ``text`` is, or is the last part of. Raises `UnknownName`, naming near ones."""
    found = [text] if text in known else sorted(name for name in known if name.endswith(f".{text}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownName(f"--job {text!r} is the end of {len(found)} job types: {', '.join(found[:_NAMED])}")
    last_parts = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(text, known, n=_NAMED, cutoff=0.5)
    near += [last_parts[each] for each in difflib.get_close_matches(text, last_parts, n=_NAMED)]
    if near:
        raise UnknownName(f"no job type {text!r}: did you mean {' or '.join(dict.fromkeys(near))}?")
    raise UnknownName(f"no job type {text!r}: the journal has none like it; is it the right --url?")
