"""What ``rqmem enqueue`` is asked to call: the path and the arguments that somebody typed, checked and understood.

All that is wrong is a `ConfigError` that says what would do; nothing here talks to Redis.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from rqmem import named_code
from rqmem.calls import why_refused
from rqmem.errors import ConfigError
from rqmem.job.base import MemoryAwareJob
from rqmem.text import did_you_mean, listed
from rqmem.values import dataclass

_NAMED = 5  # names in an error message
_NUMBER_AS_TEXT = re.compile(r"(\w+)=(-?(?:0|[1-9]\d*)(?:\.\d+)?)")


@dataclass(frozen=True)
class Target:
    """A `MemoryAwareJob` class, which enqueues itself; or else a function, which a worker finds by ``path``."""

    path: str
    job_class: type[MemoryAwareJob] | None = None
    function: Callable[..., Any] | None = None

    def texts_for_numbers(self, typed: Sequence[str]) -> list[str]:
        """Of ``name=7`` for an argument that is not declared as a text: it is the text, and how to give the number."""
        named = [each.groups() for each in map(_NUMBER_AS_TEXT.fullmatch, typed) if each is not None]
        if not named:
            return []
        called: Any = self.function if self.job_class is None else self.job_class.handle
        try:
            annotations = {name: each.annotation for name, each in inspect.signature(called).parameters.items()}
        except (TypeError, ValueError):  # some functions in C have none to tell
            annotations = {}
        return [
            f"{name} is the text {text!r}; {name}:={text} is the number"
            for name, text in named
            if annotations.get(name) not in (str, "str")
        ]

    def check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Whether it takes these arguments. Raises `ConfigError`."""
        if self.job_class is not None:
            self.job_class.check_arguments(tuple(args), kwargs)  # as its `enqueue` does, before Redis is asked
        if self.function is None:
            return
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # some functions in C have none to tell
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            reason = why_refused(signature, args, kwargs, error)
            takes = f"; it takes {_without_types(signature)}" if reason == str(error) else ""
            raise ConfigError(f"{self.path}: {reason}{takes}") from None


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)


# The path


def resolve(path: str) -> Target:
    """What a dotted path names, imported: a class of jobs, a function, or ``module.Class.run``.

    Raises `ConfigError`, naming near names.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path!r} is no path to a job: give module.Class or module.function, as in jobs.mail.send")
    owner: Any
    owner, names = named_code.split(path)
    found = owner
    for number, name in enumerate(names):
        owner = found
        if not hasattr(owner, name):
            if name in _submodules(owner):
                raise ConfigError(f"{path} is a module: name a function or a MemoryAwareJob in it")
            _refuse_unknown(path, ".".join(parts[: len(parts) - len(names) + number]), owner, name)
        found = getattr(owner, name)
    return _target(path, owner, found)


def _target(path: str, owner: Any, found: Any) -> Target:
    if inspect.isclass(found) and issubclass(found, MemoryAwareJob):
        return Target(path, job_class=found)
    if inspect.isclass(owner) and issubclass(owner, MemoryAwareJob):
        if path.endswith(".run"):
            return Target(path, job_class=owner)
        raise ConfigError(f"{path} is a part of a MemoryAwareJob: name the class, {path.rpartition('.')[0]}")
    if inspect.ismodule(found):
        raise ConfigError(f"{path} is a module: name what to call in it: {_listed(_callables(found))}")
    if inspect.isclass(found):
        raise ConfigError(f"{path} is a class, and no rqmem.MemoryAwareJob: name a function, or derive it from that")
    if not callable(found):
        raise ConfigError(f"{path} is {type(found).__name__} {found!r:.60}: name a function or a MemoryAwareJob")
    if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, path.rpartition(".")[2])):
        raise ConfigError(f"{path} is a method that needs an object: name a function, a static or a class method")
    return Target(path, function=found)


def _refuse_unknown(path: str, where: str, owner: Any, name: str) -> NoReturn:
    names = _callables(owner) + _submodules(owner)
    hint = did_you_mean(name, names, f"it has {_listed(names)}", _NAMED)
    raise ConfigError(f"{path}: {where} has no {name!r}: {hint}")


def _callables(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name, None))]


def _submodules(owner: Any) -> list[str]:
    return (
        [each.name for each in pkgutil.iter_modules(getattr(owner, "__path__", ()))] if inspect.ismodule(owner) else []
    )


def _listed(names: Sequence[str]) -> str:
    return listed(names, _NAMED) or "nothing to call"


# The arguments


def arguments(
    typed: Sequence[str], args: Sequence[str], kwargs: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the call. Raises `ConfigError`, or click's own errors.

    Args:
        typed: in rq's forms: ``text``, ``:json``, ``name=text``, ``name:=json``, ``%literal``, ``@file``.
        args: of --arg: JSON where it is, else text.
        kwargs: of --kwarg: ``name=json``.
    """
    from rqmem.rq_cli_names import parse_function_args

    try:
        positional, named = parse_function_args(typed)
    except click.BadParameter as error:
        reason = error.message.rstrip(".")
        raise ConfigError(f"{reason}: quote it for the shell, as in 'ids:=[1, 2]' or 'name:=\"text\"'") from None
    except (click.FileError, OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text in UTF-8"
        reason = "there is none" if isinstance(error, click.FileError) else reason
        files = ", ".join(text for text in typed if "@" in text)
        raise ConfigError(
            f"the file of {files} cannot be read: {reason}; a text that begins with @ is given as --arg @text, "
            f"or --kwarg 'name=\"@text\"'"
        ) from None
    positional += [_json_or_text(text) for text in args]
    for given in kwargs:
        name, value = _named(given)
        if name in named:
            raise ConfigError(f"--kwarg {name}: there is one already: give each name once")
        named[name] = value
    return tuple(positional), named


def _json_or_text(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text


def _named(given: str) -> tuple[str, Any]:
    name, equals, text = given.partition("=")
    if not (equals and name.isidentifier()):
        raise ConfigError(f"--kwarg {given!r}: give name=JSON, for example --kwarg tenant_id=7")
    try:
        return name, _json(text)
    except ValueError as error:
        eaten = text[:1] in ("[", "{", '"')
        example = f'{name}=["a", "b"]' if eaten else f"{name}={json.dumps(text, ensure_ascii=False)}"
        quoted = f"--kwarg {shlex.quote(example)}"
        what = "JSON needs its own quotes inside the shell's" if eaten else "for text"
        raise ConfigError(f"--kwarg {name}: {text!r} is no JSON ({error}); {what}: {quoted}") from None


def _json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is none")  # Python's json would take NaN and Infinity

    return json.loads(text, parse_constant=refuse)
