"""Whether the installed RQ has all that rqmem relies on (`rqmem.rq_seams`).

`rqmem.rq_names` calls `check` before it imports anything of RQ, so nothing of rqmem that works with RQ starts on one
that differs. It compares names, parameters, and which names a function uses. That takes two milliseconds, and nothing
is called. Only RQ's own tests show a change of behaviour behind the same names (``make rq-suite``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

from rqmem.errors import UnsupportedRq
from rqmem.rq_seams import ENQUEUE_OPTIONS, KNOWN, PARTS, Part


def check(parts: Sequence[Part] = PARTS) -> None:
    """Raise `UnsupportedRq` if the installed RQ lacks any of ``parts``."""
    found = list(differences(parts))
    if not found:
        return
    from rqmem import __version__

    installed = getattr(import_module("rq"), "__version__", "of an unknown version")
    more = f" (and {len(found) - 1} more differences)" if len(found) > 1 else ""
    raise UnsupportedRq(
        f"rqmem {__version__} does not work with the installed RQ {installed}: {found[0]}{more}; it knows RQ {KNOWN}: "
        f"install that (pip install 'rq{KNOWN}'), or an rqmem that knows RQ {installed}"
    )


def differences(parts: Sequence[Part]) -> Iterator[str]:
    """What the installed RQ has otherwise than ``parts`` say, in words."""
    for part in parts:
        try:
            owner = _resolve(part.where)
        except (ImportError, AttributeError):
            yield f"it has no {part.where.replace(':', '.')}"
            continue
        yield from _differences_of(part, owner)


def _differences_of(part: Part, owner: Any) -> Iterator[str]:
    where = part.where.replace(":", ".")
    for entry in part.overridden + part.called:
        name, wanted, callers = _parsed(entry)
        function = _function(owner, name)
        if function is None:
            yield f"it has no {where}.{name}"
            continue
        fits = wanted == _parameters(function) if entry in part.overridden else _takes(function, wanted)
        if not fits:
            yield f"{where}.{name} has other parameters ({', '.join(_parameters(function))})"
        for caller in callers:
            if name not in _inside(_function_at(caller, owner)):
                yield f"{caller.rpartition(':')[2]} does not call {where}.{name}"
    made = _inside(_function(owner, "__init__")) if isinstance(owner, type) else frozenset()
    for name in part.names.split():
        if _looked_up(owner, name) is None and name not in made:
            yield f"it has no {where}.{name}"
    for name, value in part.values.items():
        found = getattr(owner, name, None)
        if found != _with_prefix(value):
            yield f"{where}.{name} is {getattr(found, 'value', found)!r}"
    for name, wanted_inside in part.inside.items():
        missing = set(wanted_inside.split()) - _inside(_function(owner, name))
        if missing:
            yield f"{where}.{name} has no {min(missing)!r}"
        if name == "parse_args" and (new := _options(_function(owner, name)) - ENQUEUE_OPTIONS):
            yield f"{where}.{name} takes the new option {min(new)!r}"


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
    """As it is in the class or module, without calling any descriptor; None: it is not there."""
    for each in getattr(owner, "__mro__", (owner,)):
        if name in vars(each):
            return vars(each)[name]
    return None


def _function(owner: Any, name: str) -> FunctionType | None:
    """The function behind a method, a property or a decorated function; None: there is none."""
    found = _looked_up(owner, name)
    for step in ("fget", "__func__", "__wrapped__"):
        found = getattr(found, step, found)
    return found if isinstance(found, FunctionType) else None


def _function_at(caller: str, owner: Any) -> FunctionType | None:
    """``caller`` is a method of ``owner``, or ``module:function``."""
    module, _, name = caller.rpartition(":")
    try:
        return _function(import_module(module) if module else owner, name)
    except ImportError:
        return None


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


def _takes(function: FunctionType, wanted: list[str]) -> bool:
    """Whether the function can be called with ``wanted``: positional ones, and after ``*`` those by keyword."""
    there = _parameters(function)
    names = [each.rstrip("=") for each in there]
    positional = wanted[: wanted.index("*")] if "*" in wanted else wanted
    needed = [each for each in there if not each.endswith("=") and not each.startswith("*")]
    return names[: len(positional)] == positional and set(wanted) - {"*"} <= set(names) and set(needed) <= set(wanted)


def _inside(function: FunctionType | None) -> frozenset[str]:
    """The attributes and texts in the code of a function, with those of functions in it."""
    return frozenset(_names_in(function.__code__)) if function is not None else frozenset()


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        for each in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(each, str):
                yield each
            elif isinstance(each, CodeType):
                yield from _names_in(each)


def _options(parse_args: FunctionType | None) -> set[str]:
    """The names that `Queue.parse_args` looks for among the keyword arguments."""
    texts = parse_args.__code__.co_consts if parse_args is not None else ()
    return {each for each in texts if isinstance(each, str) and re.fullmatch("[a-z][a-z_]*", each)}


def _with_prefix(value: str) -> str:
    """A value of `PARTS` under the prefix of RQ's keys (RQ_KEY_PREFIX)."""
    if not value.startswith("rq:"):
        return value
    prefix = "FORMAT_KEY_PREFIX" if "{" in value else "RQ_KEY_PREFIX"  # the first in a template for `str.format`
    return str(getattr(sys.modules.get("rq.defaults"), prefix, "rq")) + value[2:]
