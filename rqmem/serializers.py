"""Serializers that sign what they write: `Signed` (RQ's pickle) and `SignedJSON`.

Whoever may write to Redis can make a worker run any code, since RQ's jobs are pickles. A signed job is checked before
it is unpickled: its data carry an HMAC-SHA256 of themselves with a key that Redis does not know. A job whose signature
is missing or wrong fails with `SignatureError`.

The keys are settings: ``RQMEM_SIGNING_KEY`` or ``RQMEM_SIGNING_KEY_FILE``. The first key signs, and all of them verify,
so that keys can be changed while jobs wait. Client and worker name the class::

    Queue("campaigns", serializer="rqmem.serializers.Signed")
    rqmem worker --queue campaigns --serializer rqmem.serializers.Signed

Not covered: somebody who may write to Redis can still delete jobs, repeat a job that was signed once, and read them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.errors import ConfigError, SignatureError
from rqmem.signatures import HEAD, SIGNATURE_BYTES, unsigned

LEAST_KEY_BYTES = 16
_WHERE = ("RQMEM_SIGNING_KEY", "RQMEM_SIGNING_KEY_FILE", "RQMEM_CONFIG")


class Signed:
    """RQ's pickle serializer, signed."""

    _inner: ClassVar[str] = "pickle"

    @classmethod
    def dumps(cls, value: Any) -> bytes:
        """``value`` as signed bytes. Raises `ConfigError` if there is no key."""
        payload: bytes = _serializer(cls._inner).dumps(value)
        return HEAD + _signature(_keys()[0], cls._inner, payload) + payload

    @classmethod
    def loads(cls, data: bytes) -> Any:
        """What `dumps` took.

        Raises:
            SignatureError: the signature is missing, or made with none of the keys. Nothing was deserialised.
            ConfigError: there is no key.
        """
        keys = _keys()
        payload = unsigned(data)
        if payload is None:
            raise SignatureError("these data are not signed: enqueue with serializer='rqmem.serializers.Signed'")
        signature = data[len(HEAD) : len(HEAD) + SIGNATURE_BYTES]
        valid = [hmac.compare_digest(signature, _signature(key, cls._inner, payload)) for key in keys]
        if not any(valid):
            raise SignatureError(
                f"these data are signed with none of the {len(keys)} keys of this process: they were changed, or "
                "whoever enqueued them has another key"
            )
        return _serializer(cls._inner).loads(payload)


class SignedJSON(Signed):
    """RQ's JSON serializer, signed."""

    _inner = "json"


def keys_of(config: Config) -> tuple[bytes, ...]:
    """The keys that are set, first the one that signs.

    Raises:
        ConfigError: there is none, one is shorter than 16 bytes, or the file cannot be read.
    """
    texts = [*config.signing_keys, *(_read(config.signing_key_file) if config.signing_key_file else ())]
    if not texts:
        raise ConfigError(
            "there is no key to sign jobs with: set RQMEM_SIGNING_KEY, or RQMEM_SIGNING_KEY_FILE to a file with one"
        )
    for number, text in enumerate(texts, 1):
        if len(text.encode()) < LEAST_KEY_BYTES:
            raise ConfigError(f"signing key {number} is too short: give it at least {LEAST_KEY_BYTES} characters")
    return tuple(text.encode() for text in texts)


def check(serializer: Any, config: Config) -> None:
    """Raise `ConfigError` if this serializer signs and has no usable key: each job would fail."""
    if isinstance(serializer, type) and issubclass(serializer, Signed):
        keys_of(config)


def _read(name: str) -> list[str]:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"file of signing keys {name!r} cannot be read: {reason}") from None


def _keys() -> tuple[bytes, ...]:
    return _loaded(tuple((name, os.environ.get(name, "")) for name in _WHERE), Path.cwd())


@cache
def _loaded(environ: tuple[tuple[str, str], ...], directory: Path) -> tuple[bytes, ...]:
    """Once for each environment and directory, since every job asks. A new file of keys needs a new process."""
    given: Mapping[str, str] = {name: text for name, text in environ if text}
    return keys_of(load(given).config)


def _signature(key: bytes, inner: str, payload: bytes) -> bytes:
    return hmac.new(key, inner.encode() + b" " + payload, hashlib.sha256).digest()


@cache
def _serializer(name: str) -> Any:
    from rqmem.rq_names import resolve_serializer

    return resolve_serializer(name)
