"""The file of the report: checked before the run, replaced as a whole whenever it is written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rqmem.errors import ConfigError, UntrustedFile
from rqmem.live.recording import Recording, to_json
from rqmem.live.recording_text import to_text
from rqmem.own_files import check_links
from rqmem.values import dataclass

FORMATS: dict[str, Callable[[Recording], str]] = {".json": to_json, ".txt": to_text}


@dataclass(frozen=True)
class Output:
    """Where the report goes, and as what. ``path`` is what was asked for, ``file`` where that leads."""

    path: str
    file: Path
    write: Callable[[Recording], str]

    def save(self, text: str) -> None:
        """Replace the file by one with this text, so that nobody ever reads half of one. Raises `OSError`."""
        replace(self.file, text)


def output(path: str) -> Output:
    """The file that somebody named, by its suffix and checked. Raises `ConfigError`."""
    write = FORMATS.get(Path(path).suffix.lower())
    if write is None:
        raise ConfigError(f"--output-file {path}: its name must end in .json or .txt, which says what is written")
    return Output(path, writable(path, "--output-file"), write)


def writable(path: str, option: str) -> Path:
    """The file that somebody named with an option: it can be written, there or anew. Raises `ConfigError`."""
    try:
        given = Path(path).expanduser()
        check_links(given)
        file = given.resolve()  # a link stays one
        is_directory, has_place = file.is_dir(), file.parent.is_dir()
    except (UntrustedFile, OSError, RuntimeError) as error:  # the last: "~somebody" who has no home
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{option} {path}: {reason}") from None
    if is_directory:
        raise ConfigError(f"{option} {path}: that is a directory; name a file in it")
    if not has_place:
        raise ConfigError(f"{option} {path}: there is no directory {file.parent}; make it, or name another")
    beside = _name_beside(file)
    try:
        beside.open("x").close()
        beside.unlink()
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: no file can be made in {file.parent} ({error.strerror}); name another directory"
        ) from None
    return file


def replace(file: Path, text: str) -> None:
    """Put one with this text in its place, so that nobody ever reads half of one. Raises `OSError`."""
    beside = _name_beside(file)
    try:
        with beside.open("x", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())  # a full disk is said now, and not when it is too late
        beside.replace(file)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _name_beside(file: Path) -> Path:
    """In the same directory, so that it can take the file's place; no other monitor has it."""
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}")
