"""The settings of a program, laid together, and where each of them came from.

A value is the command line's, else the environment's, else the config file's, else the default; docs/settings.md has
an example of the file. What a ``[job ...]`` section says (`JobSettings`) goes before what the job's class declares; the
worker's ceiling limits both.
Promises: an unknown section or name and an unusable value raise `ConfigError` in one line; nothing is passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rqmem import own_files
from rqmem.config import variables
from rqmem.config.settings import FIELDS, JOB_SETTINGS, SETTINGS, Config, JobSettings
from rqmem.errors import ConfigError, UntrustedFile
from rqmem.text import did_you_mean
from rqmem.values import dataclass, field

if TYPE_CHECKING:
    import configparser

FILE_VARIABLE, FILE_NAME = "RQMEM_CONFIG", "rqmem.ini"
_SECTION, _JOB = "rqmem", "job "

Kind = Literal["command line", "job class", "environment", "config file", "default"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from; ``name``: of the option, the class, the variable or the file. Empty for a default."""

    kind: Kind = "default"
    name: str = ""


@dataclass(frozen=True)
class ConfigFile:
    """A config file, read: fields of `Config` and what they are set to, and what is said of job types."""

    path: str
    values: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, JobSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """The configuration, field of it -> where its value came from (else it is the default), and the file, if any."""

    config: Config
    origins: Mapping[str, Origin]
    file: str | None = None

    def origin(self, of: str) -> Origin:
        """Where a field's value came from."""
        return self.origins.get(of, Origin())


def load(environ: Mapping[str, str], options: Mapping[str, tuple[str, Any]] | None = None) -> Settings:
    """All of it together.

    Args:
        environ: the environment; also says where the config file is.
        options: field of `Config` -> the option of the command line that sets it, and its value; None: not given.

    Raises:
        ConfigError: a name that is not known, or a value that cannot be used, in any of them.
    """
    file = read(environ) or ConfigFile("")
    found = {of: (value, Origin("config file", file.path)) for of, value in file.values.items()}
    for of, value in variables.read(environ).items():
        found[of] = value, Origin("environment", SETTINGS[of].variable)
    for of, (option, value) in (options or {}).items():
        if value is not None:
            found[of] = value, Origin("command line", option)
    config = Config(**{of: value for of, (value, _) in found.items()}, jobs=file.jobs)
    return Settings(config, {of: origin for of, (_, origin) in found.items()}, file.path or None)


def read(environ: Mapping[str, str]) -> ConfigFile | None:
    """The config file; None: nobody named one, and there is none here. Raises `ConfigError`."""
    named = environ.get(FILE_VARIABLE, "").strip()
    path = Path(named or FILE_NAME)
    if not named and not path.exists():
        return None
    try:
        if not named:
            _check_owner(path, path.stat())
        own_files.must_end(path)
        with path.open(encoding="utf-8") as file:
            if not named:  # once more, of what is read in the end
                _check_owner(path, os.fstat(file.fileno()))
            text = file.read()
    except FileNotFoundError:
        raise ConfigError(f"{FILE_VARIABLE}={named!r}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"config file {path} cannot be read: {reason}") from None
    return parse(text, str(path))


def _check_owner(path: Path, opened: os.stat_result) -> None:
    """Refuse a file that we came upon and another user wrote: it can have modules imported, and choose ceilings."""
    found = next((each for each in (path.lstat(), opened) if not own_files.is_ours(each)), opened)
    if own_files.is_ours(found) and not found.st_mode & stat.S_IWOTH:
        return
    whose = "may be written to by everybody" if own_files.is_ours(found) else f"belongs to {own_files.owner(found)}"
    raise UntrustedFile(
        f"config file {path.absolute()} {whose}, and it can have modules imported: make it yours alone, or name it "
        f"if you trust it: {FILE_VARIABLE}={path}"
    )


def parse(text: str, path: str) -> ConfigFile:
    """What a config file says. Raises `ConfigError`, which names ``path``."""
    import configparser

    parser = configparser.ConfigParser(interpolation=None, default_section="", delimiters=("=",))
    try:
        parser.read_string(text, source=path)
    except configparser.Error as error:
        raise ConfigError(f"{path}{_what_is_wrong(error)}") from None
    values: dict[str, Any] = {}
    jobs: dict[str, JobSettings] = {}
    for section in parser.sections():
        if section == _SECTION:
            values = _settings(parser[section], path)
        else:
            job = _job_type(section, path)
            if job in jobs:
                raise ConfigError(f"{path}: [{section}] is there twice: make one of the two")
            jobs[job] = _job_settings(parser[section], f"{path}: [{section}]")
    return ConfigFile(path, values, jobs)


def _what_is_wrong(error: configparser.Error) -> str:
    """In our words, which repeat no line: there may be a secret in it."""
    import configparser

    if isinstance(error, configparser.MissingSectionHeaderError):
        return f" line {error.lineno} is in no section: begin with [{_SECTION}]"
    if isinstance(error, configparser.DuplicateSectionError):
        return f" line {error.lineno}: [{error.section}] is there twice: make one of the two"
    if isinstance(error, configparser.DuplicateOptionError):
        return f" line {error.lineno}: {error.option} is there twice in [{error.section}]: take one away"
    if isinstance(error, configparser.ParsingError) and error.errors:
        return f" line {error.errors[0][0]} cannot be read: write name = value"
    return " cannot be read: write name = value, one a line, below [rqmem] or [job module.Class]"


def _settings(section: Mapping[str, str], path: str) -> dict[str, Any]:
    values = {}
    for name, text in section.items():
        if name == "redis_url":
            raise ConfigError(f"{path}: redis_url is no setting: Redis is named by --url or RQMEM_REDIS_URL")
        if name not in FIELDS:
            raise ConfigError(f"{path}: [{_SECTION}] {name} is not known: {_near(name, FIELDS)}")
        of, where = FIELDS[name], f"{path}: {name}"
        values[of] = SETTINGS[of].parse(_present(text, where), where)
    return values


def _job_type(section: str, path: str) -> str:
    job = section.removeprefix(_JOB).strip()
    if not section.startswith(_JOB):
        raise ConfigError(f"{path}: section [{section}] is not known: use [{_SECTION}], or [job module.Class]")
    parts = job.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path}: [{section}]: give the job's path, as in [job jobs.campaigns.SendInvoices]")
    return job


def _job_settings(section: Mapping[str, str], where: str) -> JobSettings:
    for name in section:
        if name not in JOB_SETTINGS:
            raise ConfigError(f"{where} {name} is not known: {_near(name, JOB_SETTINGS)}")
    said = {name: (_present(text, f"{where} {name}"), f"{where} {name}") for name, text in section.items()}
    return JobSettings(**{name: JOB_SETTINGS[name](text, named) for name, (text, named) in said.items()})


def _present(text: str, name: str) -> str:
    if not text.strip():
        raise ConfigError(f"{name} is empty: give it a value, or take the line away")
    return text.strip()


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    return did_you_mean(name, names, f"known are {', '.join(names)}")
