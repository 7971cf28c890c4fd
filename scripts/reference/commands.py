"""Every command with its help and its options, as click has them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from rqmem.cli import main
from scripts.reference.markdown import block, cell, code, table


def page() -> str:
    return "\n\n".join(_section(path, command) for path, command in commands())


def commands(group: click.Group = main, path: str = "rqmem") -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, with the words that name it."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path, **main.context_settings)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"## {path}", block(f"{path} {usage}", "text"), *_help(command.help or "")]
    for name, records in _options(command, context).items():
        rows = [(code(names), cell(about) or "-") for names, about in records]
        parts.append(table(("option" if name == "Other" else name, "meaning"), rows))
    return "\n\n".join(parts)


def _help(text: str) -> Iterator[str]:
    """Its paragraphs; those of commands as examples."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.removeprefix("\b\n").strip().splitlines()
        if lines and all(line.strip().startswith("rqmem ") for line in lines):
            yield block("\n".join(f"$ {line.strip()}" for line in lines), "console")
        elif paragraph.startswith("\b"):
            yield block("\n".join(lines), "text")
        elif lines:
            yield re.sub(r"(?<![\w`])(--[a-z][\w-]*|[A-Z]+(?:_[A-Z]+)+)", r"`\1`", " ".join(map(str.strip, lines)))


def _options(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Heading -> names and meaning of each option below it, in the order of ``--help``."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None and "--help" not in param.opts:
            groups.setdefault(vars(param).get("group", "Other"), []).append(record)
    return groups
