"""Options of commands: those made from the settings, those that a parser reads, and groups of options in ``--help``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import click

from rqmem.config.parsers import OneOf, Parser
from rqmem.config.settings import SETTINGS, Config, Setting, default
from rqmem.errors import ConfigError

Decorator = Callable[[Any], Any]


def parsed(metavar: str, parse: Parser) -> dict[str, Any]:
    """The arguments of `click.option` for an option whose text ``parse`` reads; if it may be repeated, each text."""

    def convert(ctx: click.Context, param: click.Parameter, text: str | tuple[str, ...] | None) -> Any:
        try:
            if isinstance(text, tuple):
                values = [parse(each, param.opts[0]) for each in text]
                return tuple(chain.from_iterable(each if isinstance(each, tuple) else (each,) for each in values))
            return None if text is None else parse(text, param.opts[0])
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None

    return {"metavar": metavar, "callback": convert}


def _real_paths(ctx: click.Context, param: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if not path or not Path(path).exists():  # a zip file will do too
            raise click.UsageError(f"{param.opts[0]}={path!r} is not there: give the directory of the code", ctx)
    try:
        return tuple(os.path.realpath(path) for path in paths)
    except FileNotFoundError:
        why = "the current directory no longer exists; change to your project's directory"
        raise click.UsageError(why, ctx) from None


code_path = click.option(
    "--path", "-P", "paths", metavar="DIR", multiple=True, default=["."], callback=_real_paths,
    help="Where the code of jobs is imported from.",
)  # fmt: skip
serializer_option = click.option("--serializer", "-S", default="pickle", help="pickle, json, or a path.")


def setting_options(*groups: str) -> Decorator:
    """The options of the settings of these groups, all if none is named; each has the name of its field."""

    def decorate(command: Any) -> Any:
        for field, setting in reversed(SETTINGS.items()):
            if setting.options and (not groups or setting.group in groups):
                command = _option(field, setting)(command)
        return command

    return decorate


def given_settings(options: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Those options as `rqmem.config.load.load` takes them; one that may be repeated is () if it was not given."""
    return {
        field: (setting.options[0], None if options[field] == () else options[field])
        for field, setting in SETTINGS.items()
        if field in options
    }


def _option(field: str, setting: Setting) -> Decorator:
    value, names = getattr(Config, field), [*setting.options, field]
    about = f"{setting.help[:1].upper()}{setting.help[1:]}"
    if isinstance(value, bool):
        names[0] = f"{names[0]}/--no-{names[0][2:]}"
        return click.option(*names, default=None, help=f"{about}.  [default: {'on' if value else 'off'}]")
    if isinstance(value, tuple):
        read = parsed(setting.metavar, setting.parse)
        return click.option(*names, **read, multiple=True, help=f"{about}. May be repeated.")
    shown = f"  [default: {default(field)}]" if default(field) else ""
    metavar = "|".join(setting.parse.meanings) if isinstance(setting.parse, OneOf) else setting.metavar
    return click.option(*names, **parsed(metavar, setting.parse), help=f"{about}.{shown}")


def grouped(name: str, *options: Decorator) -> Decorator:
    """The options below a heading of their own in the help of a `GroupedCommand`."""

    def decorate(command: Any) -> Any:
        before = list(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for param in vars(command)["__click_params__"]:
            if param not in before:
                vars(param)["group"] = name
        return command

    return decorate


class GroupedCommand(click.Command):
    """A command whose help has its options below the headings of `grouped`, in their order."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Replaces click's one list of all options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(vars(param).get("group", "Other"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=26)
