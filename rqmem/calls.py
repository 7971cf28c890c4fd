"""What is wrong with the arguments of a call, in one line. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from rqmem.text import did_you_mean

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def why_refused(signature: inspect.Signature, args: Sequence[object], kwargs: Iterable[str], error: TypeError) -> str:
    """Why a function does not take these arguments. A mistyped name comes first: Python would name what is missing.

    Args:
        signature: of the function.
        args: the positional arguments, with a place for ``self`` if the signature has it.
        kwargs: the names of the others.
        error: what `inspect.Signature.bind` raised.
    """
    parameters = signature.parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return str(error)
    names = [each.name for each in parameters if each.kind in _BY_NAME]
    given = list(kwargs)
    unknown = [name for name in given if name not in names]
    if not unknown:
        return str(error)
    free = [name for name in names[len(args) :] if name not in given]
    shown = [name for name in names if name != "self"]
    takes = f"it takes {', '.join(shown)}" if shown else "it takes no arguments by name"
    return f"it has no argument {unknown[0]!r}: {did_you_mean(unknown[0], free, takes)}"
