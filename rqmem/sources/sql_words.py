"""Finds what in the text of a query makes it another set each time it is run. Pure.

In such a query, whether a row is selected depends on others: LIMIT, OFFSET, FETCH, TOP, DISTINCT ON, window functions,
samples, and functions that are random. They are harmless in the list of what is selected (``SELECT id, (SELECT ...
LIMIT 1) FROM ...``) and within EXISTS. Words in texts, quoted names and comments are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rqmem.values import dataclass

_PATTERN = r"""
    --[^\n]* | /\*.*?\*/                            # comments
    | '(?:[^'{backslash}]|''{escape})*' | (\$\w*\$).*?\1  # texts
    | "(?:[^"]|"")*" | `[^`]*` | \[[^\]\d][^\]]*\]  # quoted names
    | %\(\w+\)s | %s | [:@]\w+ | \$\d+ | \?         # placeholders
    | \d[\w.]* | [^\W\d][\w$]* | [().,;] | [^\s]
    """
# Whether a backslash in a text escapes what follows depends on the database: both readings are looked at.
_TOKENS = [
    re.compile(_PATTERN.replace("{backslash}", backslash).replace("{escape}", escape), re.VERBOSE | re.DOTALL)
    for backslash, escape in (("", ""), (r"\\", r"|\\."))
]
_NAME = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"\d|%\(|%s|[:@$?]|\(|(?i:all|null)$")
RANDOM = frozenset(
    (
        *("random", "rand", "randomblob", "newid", "newsequentialid", "uuid", "gen_random_uuid", "nextval"),
        *("uuid_generate_v1", "uuid_generate_v4", "uuidv4", "uuidv7", "random_normal", "sys_guid", "rownum"),
    )
)
"""Functions (and one pseudo-column) whose value is another one each time."""
AGGREGATES = frozenset(("max", "min", "count", "sum", "avg", "array_agg", "string_agg", "group_concat", "any_value"))


@dataclass(frozen=True)
class FoundWord:
    """Such a word. ``outermost``: it is in no subquery. ``alias``: the name of the column that it makes."""

    word: str
    outermost: bool
    selected: bool = False
    alias: str = ""


def changing(query: str) -> Iterator[FoundWord]:
    """What makes another set of the query, and computed columns of which it does not, named by ``alias``."""
    for pattern in _TOKENS[: 2 if "\\" in query else 1]:
        yield from _changing(_words(query, pattern))


def _words(query: str, pattern: re.Pattern[str]) -> list[str]:
    tokens = (match[0] for match in pattern.finditer(query))
    return [
        token.casefold() if _NAME.fullmatch(token) else token for token in tokens if not token.startswith(("--", "/*"))
    ]


def _changing(words: list[str]) -> Iterator[FoundWord]:
    within_exists, selected = [False], False
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        before = words[at - 1] if at else ""
        if word == "(":
            within_exists.append(within_exists[-1] or before == "exists")
        elif word == ")" and len(within_exists) > 1:
            within_exists.pop()
        depth = len(within_exists) - 1
        if depth == 0 and word == "select":
            selected = True
        elif depth == 0 and word == "from":
            selected = False
        name = _meaning(word, before, after)
        listed = selected and name not in ("TOP", "DISTINCT ON")
        if name and not within_exists[-1] and (listed or word not in AGGREGATES):
            yield FoundWord(name, depth == 0, listed, _alias(words, at, depth) if listed else "")


def ordered(query: str) -> bool:
    """Whether the outermost query has an ORDER BY."""
    depth = 0
    words = _words(query, _TOKENS[0])
    for at, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0 and words[at : at + 2] == ["order", "by"]:
            return True
    return False


def _meaning(word: str, before: str, after: str) -> str:
    """What the word means between these two; empty: nothing."""
    if word in _KEYWORDS:
        name, means_it = _KEYWORDS[word]
        return name if means_it(before, after) else ""
    if word == "rownum" or (word in RANDOM | AGGREGATES and after == "(" and before != "."):
        return f"{word}()" if after == "(" else word.upper()
    return ""


def _counts(before: str, after: str) -> bool:
    return before != "." and after != "(" and _NUMBER.match(after) is not None


_KEYWORDS: dict[str, tuple[str, Callable[[str, str], bool]]] = {
    "limit": ("LIMIT", lambda before, after: after == "(" or _counts(before, after)),
    "offset": ("OFFSET", _counts),
    "fetch": ("FETCH", lambda before, after: after in ("first", "next")),
    "top": ("TOP", lambda before, after: before in ("select", "distinct", "all") and bool(_NUMBER.match(after))),
    "distinct": ("DISTINCT ON", lambda before, after: after == "on"),
    "over": ("a window function", lambda before, after: before == ")" and (after == "(" or bool(_NAME.match(after)))),
    "tablesample": ("TABLESAMPLE", lambda before, after: True),
}
"""Each with its meaning, and whether it has that between the word before it and the one after it."""


def _alias(words: list[str], at: int, depth: int) -> str:
    """The name of the selected column that contains the word at that place."""
    end = at
    while end < len(words):
        depth += (words[end] == "(") - (words[end] == ")")
        if depth <= 0 and words[end] in (",", "from"):
            break
        end += 1
    return words[end - 1].strip('"`[]').casefold()
