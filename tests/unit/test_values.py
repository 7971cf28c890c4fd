"""`rqmem.values.dataclass` does what the standard library's does for frozen classes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import field
from typing import Any

import pytest

from rqmem import values


class _Point:
    x: int
    y: float = 0.5
    names: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", abs(self.x))


class _Named:
    first: str
    second: int = 2


def _both(cls: type, **options: Any) -> tuple[Any, Any]:
    """The class as a dataclass of the standard library, and as one of ours."""
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    makers = (dataclasses.dataclass, values.dataclass)
    standard, ours = (make(frozen=True, **options)(type(cls.__name__, (), dict(own))) for make in makers)
    return standard, ours


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((-3,), {}),
    ((1, 2.0), {"secret": "s"}),
    ((), {"names": ["n"], "x": 1}),
    ((1, 2.0, ["n"], "s"), {}),
    ((), {}),
    ((1, 2.0, [], "s", 5), {}),
    ((1,), {"x": 1}),
    ((1,), {"z": 1}),
]


@pytest.mark.parametrize(("given", "named"), CALLS)
def test_a_value_takes_the_arguments_of_a_standard_dataclass(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    standard, ours = _both(_Point)
    try:
        expected = standard(*given, **named)
    except TypeError:
        with pytest.raises(TypeError):
            ours(*given, **named)
        return
    made = ours(*given, **named)
    assert list(vars(made).items()) == list(vars(expected).items())
    assert repr(made) == repr(expected)
    assert dataclasses.asdict(made) == dataclasses.asdict(expected)


def test_arguments_by_keyword_only_are_refused_by_position() -> None:
    standard, ours = _both(_Named, kw_only=True)
    for each in (standard, ours):
        with pytest.raises(TypeError):
            each("a")
        assert (each(first="a").first, each(first="a").second) == ("a", 2)


def test_values_are_equal_and_hash_alike_by_the_fields_that_are_compared() -> None:
    _, ours = _both(_Point)
    assert ours(1, names=[], secret="a") == ours(1, secret="b") != ours(2)
    assert ours(1) != (1, 0.5, [])
    _, named = _both(_Named)
    assert len({named("a"), named("a"), named("b")}) == 2


def test_a_value_cannot_be_changed() -> None:
    standard, ours = _both(_Named)
    for each in (standard("a"), ours("a")):
        with pytest.raises(dataclasses.FrozenInstanceError, match="first"):
            each.first = "b"
        with pytest.raises(dataclasses.FrozenInstanceError):
            each.other = "b"
        with pytest.raises(dataclasses.FrozenInstanceError):
            del each.first
        assert dataclasses.replace(each, second=3).second == 3


def test_a_plain_subclass_may_have_attributes_of_its_own() -> None:
    for base in _both(_Named):
        made = type("Below", (base,), {})("a")
        made.other = 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.second = 1


def test_a_mutable_default_is_refused() -> None:
    with pytest.raises(ValueError, match="mutable default"):
        _both(type("Bad", (), {"__annotations__": {"x": "list"}, "x": []}))


def test_help_shows_the_fields() -> None:
    standard, ours = _both(_Point)
    shown = str(inspect.signature(ours))
    assert shown == "(x, y=0.5, names=<factory>, secret='')"
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(standard).parameters)


@values.dataclass(frozen=True)
class Kept:
    """A value that is copied and pickled."""

    number: int
    below: Kept | None = None


def test_values_are_copied_and_pickled() -> None:
    kept = Kept(1, Kept(2))
    assert copy.deepcopy(kept) == copy.copy(kept) == pickle.loads(pickle.dumps(kept)) == kept


def test_a_method_of_the_class_takes_precedence() -> None:
    @values.dataclass(frozen=True)
    class Shown:
        x: int

        def __repr__(self) -> str:
            return "mine"

    assert repr(Shown(1)) == "mine"
