"""What a job type declares about its jobs as a whole: that they are unique, and how many of them run at once.

RQ does both, with the options that are made here: a unique id with ``unique=True``, and `rq.RateLimit`. So a stock
``rq worker`` keeps them too. Redis is not asked here.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Set
from functools import cache
from typing import Any

from rqmem.errors import ConfigError
from rqmem.meta_of_jobs import TENANT
from rqmem.values import dataclass

UNIQUE_ID = re.compile(r"unique-\w+-[0-9a-f]{32}")
"""The ids of unique jobs."""

PER_TYPE = "__rqmem_per_type__"
"""Attribute of a decorated function: what it declares about its jobs as a whole, if anything (`PerType`)."""

_LONGEST_KEY = 100


@dataclass(frozen=True)
class PerType:
    """What a job type declares, checked by `checked`.

    Attributes:
        name: of the job type, a dotted path.
        whose: name of the class or function, for errors.
    """

    name: str
    whose: str
    unique: bool = False
    concurrency: int | None = None
    concurrency_key: str | Callable[..., Any] | None = None
    tenant: str | None = None

    @property
    def declares(self) -> bool:
        return self.unique or self.concurrency is not None or self.tenant is not None

    def options(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """RQ's enqueue options for a call with these arguments; ``given``: the caller's. Raises `ConfigError`."""
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found = self._meta(bound.arguments, given)
        if self.unique and given.get("unique", True) and not UNIQUE_ID.fullmatch(given.get("job_id") or ""):
            return found | self._unique_options(bound.arguments, given)
        if self.concurrency is not None and given.get("rate_limit") is None:
            return found | self._concurrency_options(args, kwargs, bound.arguments, given)
        return found

    def _meta(self, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The tenant is noted in RQ's meta, for those who must know it before the job runs."""
        if self.tenant is None:
            return {}
        meta = given.get("meta") or {}
        return {"meta": {**meta, "rqmem": {**meta.get("rqmem", {}), TENANT: _tenant_in(arguments, self.tenant)}}}

    def _unique_options(self, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        for name, why in (
            ("job_id", "the id is made of its arguments; pass unique=False to give one"),
            ("depends_on", "RQ cannot enqueue a unique job that depends on others"),
            ("rate_limit", "RQ cannot limit unique jobs"),
            ("pipeline", "a unique job is enqueued at once"),
        ):
            if given.get(name):
                raise ConfigError(f"{self.whose} is unique, so it takes no {name}: {why}")
        text = json.dumps([self.name, {name: self._canonical(value, name) for name, value in arguments.items()}])
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return {"unique": True, "job_id": f"unique-{re.sub(r'[^0-9A-Za-z_]', '_', self.whose)}-{digest}"}

    def _canonical(self, value: Any, name: str) -> Any:
        """The value as JSON, the same for values that are equal, and another one for others."""
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value) if isinstance(value, enum.Enum) else value
        if isinstance(value, list | tuple):
            return ["list", *(self._canonical(each, name) for each in value)]
        if isinstance(value, Mapping):
            items = [[self._canonical(key, name), self._canonical(each, name)] for key, each in value.items()]
            return ["dict", *sorted(items, key=json.dumps)]
        if isinstance(value, Set):
            return ["set", *sorted((self._canonical(each, name) for each in value), key=json.dumps)]
        if isinstance(value, _equal_as_texts()):
            return [type(value).__qualname__, str(value)]
        raise ConfigError(
            f"{self.whose} is unique, and its argument {name!r} has a {type(value).__qualname__}: give numbers, texts, "
            f"dates, or lists and dicts of them, whose equality is plain"
        )

    def _concurrency_options(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], arguments: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        from rqmem.rq_names import RateLimit

        if given.get("pipeline") is not None:
            raise ConfigError(f"{self.whose} has a concurrency, so it takes no pipeline: it is enqueued at once")
        assert self.concurrency is not None
        key = self.name
        if self.concurrency_key is not None:
            key = f"{key}:{self._key(args, kwargs, arguments)}"
        return {"rate_limit": RateLimit(key, self.concurrency)}

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
        if callable(self.concurrency_key):
            try:
                value = self.concurrency_key(*args, **kwargs)
            except Exception as error:
                raise ConfigError(
                    f"{self.whose}.concurrency_key failed: {type(error).__name__}: {error}; it is called with the "
                    f"arguments of the job"
                ) from error
        else:
            value = argument(arguments, str(self.concurrency_key))
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigError(
                f"{self.whose}.concurrency_key gave {value!r:.100} for this job: it has to be a text or a whole number"
            )
        text = str(value)
        short = len(text) <= _LONGEST_KEY and text.isprintable()
        return text if short else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _equal_as_texts() -> tuple[type, ...]:
    """Classes whose values are equal if their texts are. Imported where they are needed: few jobs are unique."""
    from datetime import date, time, timedelta
    from decimal import Decimal
    from pathlib import PurePath
    from uuid import UUID

    return date, time, timedelta, Decimal, PurePath, UUID, enum.Enum, bytes


def tenant_of(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """For whom a job with these arguments works: the value of the argument as text; empty: for nobody."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # the call itself says so in a moment
        return ""
    bound.apply_defaults()
    return _tenant_in(bound.arguments, name)


def _tenant_in(arguments: Mapping[str, Any], name: str) -> str:
    value = argument(arguments, name)
    return "" if value is None else str(value)[:_LONGEST_KEY]


def argument(arguments: Mapping[str, Any], name: str) -> Any:
    """The argument of that name, also where a job takes any (``**kwargs``); None: there is none."""
    if name in arguments:
        return arguments[name]
    return next((each[name] for each in arguments.values() if isinstance(each, dict) and name in each), None)


def checked(declared: PerType, signature: inspect.Signature) -> PerType:
    """What was declared, if it can be used for a job with these parameters. Raises `ConfigError`."""
    whose, concurrency, key = declared.whose, declared.concurrency, declared.concurrency_key
    if not isinstance(declared.unique, bool):
        raise ConfigError(f"{whose}.unique is {declared.unique!r}: give True or False")
    if concurrency is not None and (
        isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
    ):
        raise ConfigError(f"{whose}.concurrency is {concurrency!r}: give a whole number of at least 1")
    if declared.unique and concurrency is not None:
        raise ConfigError(f"{whose} has unique and concurrency: RQ cannot limit unique jobs; choose one")
    if declared.tenant is not None:
        if not isinstance(declared.tenant, str):
            raise ConfigError(f"{whose}.tenant is {declared.tenant!r}: name an argument")
        check_argument(f"{whose}.tenant", declared.tenant, signature)
    if key is None:
        return declared
    if concurrency is None:
        raise ConfigError(f"{whose} has a concurrency_key and no concurrency: say how many run at once for each key")
    if not isinstance(key, str):
        if not callable(key):
            raise ConfigError(f"{whose}.concurrency_key is {key!r}: name an argument, or give a function of them")
        return declared
    check_argument(f"{whose}.concurrency_key", key, signature)
    return declared


def check_argument(whose: str, name: str, signature: inspect.Signature) -> None:
    """Raise `ConfigError` where a job with these parameters takes no argument of that name."""
    parameters = signature.parameters.values()
    named = [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if name not in named and not any(each.kind is each.VAR_KEYWORD for each in parameters):
        raise ConfigError(f"{whose} is {name!r}: the job takes no argument of that name ({', '.join(named) or 'none'})")
