"""Where in the middle of a CSV file a record begins, without reading what comes before. Pure.

A line end within quotes ends no record, and whether a byte is within quotes depends on all quotes before it. But the
quotes near it are enough, since a file that follows RFC 4180 has quotes in few places. Take a run of quotes with what
comes before and after it (S: a delimiter or a line end; x: anything else)::

    S"x    opens a field        odd run: the text before is outside of quotes, the text after within
    x"S    closes a field       odd run: within, then outside
    x""x, x""S, S""x            even run: escaped quotes, so within before and after
    S"S, S""S                   may be either: look on
    x"x    in no proper file    `Undecided`

So one telling run settles it; almost always the first quotes do. Where none comes for longer than a field may be (the
csv module reads none of more than `csv.field_size_limit`), the place is outside of quotes.

A file that breaks the rules elsewhere harms nothing; one that breaks them so that a cut goes wrong is noticed when the
slice before the cut is read, since it then ends within a record (`CsvFile`).
"""

from __future__ import annotations

import re

from rqmem.values import dataclass

_LINE_ENDS = b"\r\n"
_CUT_CHARACTERS = 8  # of which the window may hold a part only, at both ends


class Undecided(Exception):
    """The bytes here do not show whether they are within quotes."""


@dataclass(frozen=True)
class Quoting:
    """What is looked for. ``telling``: runs of quotes but for S""S; ``turning``: runs, and line ends."""

    quote: bytes
    separators: bytes
    telling: re.Pattern[bytes]
    turning: re.Pattern[bytes]
    runs: re.Pattern[bytes]

    @classmethod
    def of(cls, delimiter: str, quote: str) -> Quoting:
        """Both one ASCII character."""
        separators = delimiter.encode() + _LINE_ENDS
        q, s = re.escape(quote.encode()), b"[" + re.escape(separators) + b"]"
        return cls(
            quote=quote.encode(),
            separators=separators,
            # Begins with the quote itself, so that the search runs to it at the speed of memory.
            telling=re.compile(q + b"(?<!" + q + q + b")(?!(?<=" + s + q + b")" + q + b"(?=" + s + b"))" + q + b"*"),
            turning=re.compile(q + rb"+|\r\n?|\n"),
            runs=re.compile(q + b"+"),
        )


def record_start(
    data: bytes, quoting: Quoting, *, at_end: bool, longest_field: int, encoding: str = "utf-8"
) -> int | None:
    """The offset in ``data`` of the first record that begins after its first byte.

    Args:
        at_end: whether the file ends with it. Its end is then taken for the beginning of a record.
        longest_field: characters, in that encoding, that no field is longer than.

    Returns:
        None if more of the file is needed.

    Raises:
        Undecided: the data do not show it.
    """
    first_run = quoting.runs.match(data)  # perhaps the second half of a run, so it decides nothing
    begin = first_run.end() if first_run else 0
    if begin == len(data):
        return begin if at_end else None
    unsure = turns = False  # whether the state at ``begin`` is another one than before the run looked at
    for run in quoting.telling.finditer(data, begin):
        start, stop = run.span()
        if stop == len(data) and not at_end:
            break
        odd = (stop - start) % 2 == 1
        after_separator = data[start - 1] in quoting.separators
        before_separator = stop == len(data) or data[stop] in quoting.separators
        if after_separator and before_separator:
            turns ^= odd
            unsure |= odd
        elif odd and not after_separator and not before_separator:
            raise Undecided
        else:
            within_before = not odd or not after_separator
            return _line_end(data, begin, quoting, within=within_before ^ turns, at_end=at_end)
    # Taken as the inside of one field: two quotes are one character of it.
    longest = longest_field + data.count(quoting.quote, begin) // 2 + _CUT_CHARACTERS
    if not at_end and not (len(data) > longest and len(data.decode(encoding, "replace")) > longest):
        return None
    if unsure:
        raise Undecided
    return _line_end(data, begin, quoting, within=False, at_end=at_end)


def _line_end(data: bytes, position: int, quoting: Quoting, *, within: bool, at_end: bool) -> int | None:
    """After the first line end from ``position`` on that is outside of quotes, read as the csv module reads."""
    while True:
        found = (quoting.runs if within else quoting.turning).search(data, position)
        if found is None or (found.end() == len(data) and not found[0].endswith(b"\n")):
            return len(data) if at_end else None
        if found[0][0] in _LINE_ENDS:
            return found.end()
        position = found.end()
        if len(found[0]) % 2 == 1:
            # A quote in the middle of an unquoted field is an ordinary character.
            within = not within and data[found.start() - 1] in quoting.separators
