"""Parts of Markdown. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def code(text: str) -> str:
    """Text as code, in a table too."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{cell(text)}{fence}"


def cell(text: str) -> str:
    """Text in one line, for a table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", r"\|")


def block(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def prose(docstring: str) -> str:
    """The text of a docstring: its literal blocks (``::``) become fenced ones, and no sign of it is HTML."""
    text = re.sub(r"^::\n", "", docstring, flags=re.MULTILINE)
    text = re.sub(r"::\n\n", ":\n\n", text)
    parts = re.split(r"((?:^ {4,}.*\n?|^\n)+)", f"{text}\n", flags=re.MULTILINE)
    shown = []
    for part in parts:
        if re.match(r"\n* {4}", part):
            lines = [line.removeprefix("    ") for line in part.strip("\n").splitlines()]
            shown.append("\n" + block("\n".join(lines), "text") + "\n\n")
        else:
            shown.append(part)
    return re.sub(r"\n{3,}", "\n\n", "".join(shown)).strip()
