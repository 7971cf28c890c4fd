"""`dataclass` as the standard library's, for frozen classes, at a tenth of what one costs to define.

The standard library compiles seven methods for each class, in half a millisecond. rqmem has two hundred such classes,
and a worker loads more than half of them when it starts. Here all classes share the methods.
`dataclasses.fields`, ``replace`` and ``asdict`` work as usual.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import field as field
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
        """Make the class a dataclass. Only ``frozen=True`` is supported."""
        assert frozen

        def decorate(cls: type[T]) -> type[T]:
            doc = cls.__doc__
            cls.__doc__ = doc or ""  # otherwise the standard library writes one
            dataclasses.dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=kw_only)(cls)
            cls.__doc__ = doc
            fields = dataclasses.fields(cls)
            cls.__form__ = _Form(fields)
            for name, method in _SHARED.items():
                if vars(cls).get(name) is None:
                    setattr(cls, name, method)
            return cls

        return decorate


class _ToBeMade:
    """The default of a field that has a ``default_factory``, in signatures."""

    def __repr__(self) -> str:
        return "<factory>"


_TO_BE_MADE: Any = _ToBeMade()
_TO_BE_GIVEN: Any = object()


class _Form:
    """The fields of a class, as its shared methods need them."""

    __slots__ = ("compared", "defaults", "factories", "known", "names", "positional", "required", "shown", "template")

    def __init__(self, fields: tuple[dataclasses.Field[Any], ...]) -> None:
        missing = dataclasses.MISSING
        self.names = tuple(each.name for each in sorted(fields, key=lambda each: bool(each.kw_only)))
        self.positional = sum(not each.kw_only for each in fields)
        self.factories = {each.name: each.default_factory for each in fields if each.default_factory is not missing}
        self.defaults = {each.name: each.default for each in fields if each.default is not missing}
        self.defaults.update(dict.fromkeys(self.factories, _TO_BE_MADE))
        self.required = frozenset(self.names) - self.defaults.keys()
        self.template = {name: self.defaults.get(name, _TO_BE_GIVEN) for name in self.names}
        self.known = frozenset(self.names)
        self.compared = tuple(each.name for each in fields if each.compare)
        self.shown = tuple(each.name for each in fields if each.repr)


def _init(self: Any, /, *given: Any, **named: Any) -> None:
    form, values = self.__form__, self.__dict__
    if given:
        if len(given) > form.positional:
            raise TypeError(f"{type(self).__qualname__} takes {form.positional} positional arguments, not {len(given)}")
        if twice := named.keys() & form.names[: len(given)]:
            raise TypeError(f"{type(self).__qualname__} has no argument {min(twice)!r}, or it is given twice")
        named.update(zip(form.names, given, strict=False))
    if not form.required <= named.keys() <= form.known:
        if unknown := named.keys() - form.known:
            raise TypeError(f"{type(self).__qualname__} has no argument {min(unknown)!r}, or it is given twice")
        lacks = next(name for name in form.names if name in form.required and name not in named)
        raise TypeError(f"{type(self).__qualname__} lacks the argument {lacks!r}")
    values.update(form.template)
    values.update(named)
    for name, make in form.factories.items():
        if values[name] is _TO_BE_MADE:
            values[name] = make()
    if hasattr(self, "__post_init__"):
        self.__post_init__()


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__form__.shown)
    return f"{type(self).__qualname__}({shown})"


def _key(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__form__.compared)


def _eq(self: Any, other: object) -> Any:
    return _key(self) == _key(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_key(self))


def _setattr(self: Any, name: str, value: Any) -> None:
    _refuse(self, name, "assign to")
    object.__setattr__(self, name, value)


def _delattr(self: Any, name: str) -> None:
    _refuse(self, name, "delete")
    object.__delattr__(self, name)


def _refuse(self: Any, name: str, what: str) -> None:
    if "__form__" in vars(type(self)) or name in self.__form__.names:  # a plain subclass may have other attributes
        raise dataclasses.FrozenInstanceError(f"cannot {what} field {name!r}")


class _SignatureOfFields:
    """What `inspect.signature` and `help` show of the class."""

    def __get__(self, instance: object, cls: type[Any]) -> Any:
        from inspect import Parameter, Signature

        form: _Form = cls.__form__
        kinds = [Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY]
        return Signature(
            [
                Parameter(name, kinds[number >= form.positional], default=form.defaults.get(name, Parameter.empty))
                for number, name in enumerate(form.names)
            ]
        )


_SHARED = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__signature__": _SignatureOfFields(),
}
