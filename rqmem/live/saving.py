"""The file of the report: checked before the run, replaced as a whole whenever it is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rqmem.errors import ConfigError, UntrustedFile
from rqmem.live.recording import Recording, to_json
from rqmem.live.recording_text import to_text
from rqmem.own_files import beside, check_links, create, replace
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
        replace(self.file, text, 0o666, synced=True)


def output(path: str) -> Output:
    """The file that somebody named, by its suffix and checked. Raises `ConfigError`."""
    write = FORMATS.get(Path(path).suffix.lower())
    if write is None:
        raise ConfigError(f"--output-file {path}: its name must end in .json or .txt, which says what is written")
    return Output(path, writable(path, "--output-file"), write)


def writable(path: str, option: str) -> Path:
    """The file that was named with an option, if it can be written or made. Raises `ConfigError`."""
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
    probe = beside(file)
    try:
        os.close(create(probe))
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: no file can be made in {file.parent} ({error.strerror}); name another directory"
        ) from None
    return file
