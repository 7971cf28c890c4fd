"""Encodings in which a file can be cut: its special characters are single bytes with no other meaning."""

from __future__ import annotations

import codecs
from functools import cache

from rqmem.errors import ConfigError


def codec_of(encoding: str) -> str:
    """The encoding without a byte order mark, which is skipped where a file begins."""
    name = codecs.lookup(encoding).name
    return "utf-8" if name == "utf-8-sig" else name


@cache
def check_encoding(encoding: str, special: str, whose: str) -> None:
    """Raise `ConfigError` unless those characters are found in the bytes by looking for theirs."""
    try:
        if codecs.lookup(encoding).name in ("utf-8", "ascii"):
            return
        plain = bytes(range(128))
        others = (chr(number).encode(encoding, "ignore") for number in range(128, 0x10000))
        fits = plain.decode(encoding) == plain.decode("ascii")
        fits = fits and not any(byte in each for each in others for byte in special.encode())
    except UnicodeError:  # of some codecs not its subclasses: idna takes no "ignore"
        fits = False
    except (LookupError, ValueError):
        raise ConfigError(f"{whose}: there is no encoding {encoding!r}") from None
    if not fits:
        raise ConfigError(f"{whose}: a file in {encoding} cannot be cut: convert it to UTF-8 first")
