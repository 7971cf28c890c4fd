"""Whether the installed RQ has all that rqmem relies on (`rqmem.rq_seams`).

`rqmem.rq_names` calls `check` before it imports anything of RQ, so nothing of rqmem that works with RQ starts on one
that differs. It compares names, parameters, and which names a function uses. That takes three milliseconds, and nothing
is called. Only RQ's own tests show a change of behaviour behind the same names (``make rq-suite``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence, Set
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

from rqmem._version import __version__
from rqmem.errors import UnsupportedRq
from rqmem.rq_seams import KNOWN, PARTS, Part


def check(parts: Sequence[Part] = PARTS) -> None:
    """Raise `UnsupportedRq` if the installed RQ lacks any of ``parts``."""
    found = list(differences(parts))
    if not found:
        return
    installed = getattr(import_module("rq"), "__version__", "of an unknown version")
    more = f" (and {len(found) - 1} more differences)" if len(found) > 1 else ""
    raise UnsupportedRq(
        f"the installed RQ {installed} does not fit rqmem {__version__}: it has no {found[0]}{more}; rqmem knows RQ "
        f"{KNOWN}: install that (pip install 'rq{KNOWN}'), or an rqmem that knows RQ {installed}"
    )


def differences(parts: Sequence[Part]) -> Iterator[str]:
    """What of ``parts`` the installed RQ does not have, in words that follow "it has no"."""
    for part in parts:
        where = part.where.replace(":", ".")
        try:
            owner = _resolve(part.where)
        except (ImportError, AttributeError):
            yield where
            continue
        found = (*_functions(part, owner), *_names(part, owner), *_values(part, owner), *_texts(part, owner))
        yield from (f"{where}.{each}" for each in found)


def _functions(part: Part, owner: Any) -> Iterator[str]:
    for entry in part.overridden + part.called:
        name, wanted, callers = _parsed(entry)
        if _looked_up(owner, name) is None:
            yield name
            continue
        function = _function(owner, name)
        if function is not None:
            there = _parameters(function)
            if not (there == wanted if entry in part.overridden else _takes(there, wanted)):
                yield f"{name}({', '.join(wanted)}), but {name}({', '.join(there)})"
        for caller in callers:
            module, _, calling = caller.rpartition(":")
            where = sys.modules.get(module) if module else owner
            if where is None or _missing(where, calling, {name}):
                yield f"{name} that {calling} calls"


def _names(part: Part, owner: Any) -> Iterator[str]:
    missing = {name for name in part.names.split() if _looked_up(owner, name) is None}
    yield from sorted(_missing(owner, "__init__", missing) if isinstance(owner, type) else missing)


def _values(part: Part, owner: Any) -> Iterator[str]:
    for name, value in part.values.items():
        if getattr(owner, name, None) != _with_prefix(value):
            yield f"{name} that is {value!r}"


def _texts(part: Part, owner: Any) -> Iterator[str]:
    for name, texts in part.inside.items():
        yield from (f"{name} with {text!r} in it" for text in sorted(_missing(owner, name, set(texts.split()))))
    for name, options in part.options.items():
        yield from (f"{name} with the option {option!r}" for option in sorted(_missing(owner, name, options)))
        yield from (f"{name} that leaves {option!r} to the job" for option in _options(owner, name) - options)


def _resolve(where: str) -> Any:
    module, _, name = where.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found


def _parsed(entry: str) -> tuple[str, list[str], list[str]]:
    """Name, parameters and callers of an entry."""
    call, _, callers = entry.partition(" <- ")
    name, _, parameters = call[:-1].partition("(")
    return name, parameters.split(", ") if parameters else [], callers.split(", ") if callers else []


def _looked_up(owner: Any, name: str) -> Any:
    """As it is in RQ's class or module, without calling any descriptor; None: it is not there."""
    homes = [each for each in owner.__mro__ if _is_rqs(each)] if isinstance(owner, type) else [owner]
    return next((vars(home)[name] for home in homes if name in vars(home)), None)


def _function(owner: Any, name: str) -> FunctionType | None:
    """RQ's function behind a method, a property or a decorated function.

    None: it is not there, or a library that instruments RQ has put another one in its place, without `functools.wraps`.
    """
    found = _looked_up(owner, name)
    for step in ("fget", "__func__"):
        found = getattr(found, step, found)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    return found if isinstance(found, FunctionType) and _is_rqs(found) else None


def _is_rqs(found: Any) -> bool:
    return str(found.__module__).partition(".")[0] == "rq"


def _parameters(function: FunctionType) -> list[str]:
    """Names of the parameters, without self; ``=`` marks those with a default."""
    code = function.__code__
    positional = list(code.co_varnames[: code.co_argcount])
    by_keyword = list(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
    first_default = len(positional) - len(function.__defaults__ or ())
    names = [f"{name}=" if number >= first_default else name for number, name in enumerate(positional)]
    rest = code.co_argcount + code.co_kwonlyargcount
    if code.co_flags & 0x04:
        names.append(f"*{code.co_varnames[rest]}")
        rest += 1
    names += [f"{name}=" if name in (function.__kwdefaults__ or {}) else name for name in by_keyword]
    if code.co_flags & 0x08:
        names.append(f"**{code.co_varnames[rest]}")
    return names[1:] if positional[:1] in (["self"], ["cls"]) else names


def _takes(there: list[str], wanted: list[str]) -> bool:
    """Whether such a function can be called with ``wanted``: positional ones, and after ``*`` those by keyword."""
    names = [each.rstrip("=") for each in there]
    positional = wanted[: wanted.index("*")] if "*" in wanted else wanted
    needed = [each for each in there if not each.endswith("=") and not each.startswith("*")]
    return names[: len(positional)] == positional and set(wanted) - {"*"} <= set(names) and set(needed) <= set(wanted)


def _missing(owner: Any, name: str, texts: Set[str]) -> Set[str]:
    """Which of ``texts`` are no attribute or text in the code of RQ's function, or of functions in it."""
    function = _function(owner, name)
    if function is not None:
        return texts - set(_names_in(function.__code__))
    return texts if _looked_up(owner, name) is None else set()


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        for each in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(each, str):
                yield each
            elif isinstance(each, CodeType):
                yield from _names_in(each)


def _options(owner: Any, name: str) -> set[str]:
    """The names that a function looks for among its keyword arguments: the texts in it that could be names."""
    function = _function(owner, name)
    texts = function.__code__.co_consts if function is not None else ()
    return {each for each in texts if isinstance(each, str) and re.fullmatch("[a-z][a-z_]*", each)}


def _with_prefix(value: str) -> str:
    """A value of `PARTS` under the prefix of RQ's keys (RQ_KEY_PREFIX)."""
    if not value.startswith("rq:"):
        return value
    prefix = "FORMAT_KEY_PREFIX" if "{" in value else "RQ_KEY_PREFIX"  # the first in a template for `str.format`
    return str(getattr(sys.modules.get("rq.defaults"), prefix, "rq")) + value[2:]
