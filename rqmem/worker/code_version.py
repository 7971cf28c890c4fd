"""Which version of their code the jobs of a worker run, as far as that can be known without asking anybody.

It is what ``RQMEM_CODE_VERSION`` says, else the commit that is checked out where the worker starts. This reads files of
git and runs nothing. A directory that is no repository has no version: then nothing is recorded.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST_CHARACTERS = 40
_SHOWN = 10  # of a commit's id
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def code_version(configured: str, directory: Path) -> str:
    named = " ".join(configured.split())[:MOST_CHARACTERS]
    return named or commit(directory)[:_SHOWN]


def commit(directory: Path) -> str:
    """The id of the commit that is checked out there, or in a directory above it; empty: none, or it cannot be read."""
    for each in (directory, *directory.parents):
        try:
            if (each / ".git").exists():
                return _head(each / ".git")
        except OSError:
            return ""
    return ""


def _head(git: Path) -> str:
    if git.is_file():  # a worktree or a submodule: "gitdir: ..."
        git = (git.parent / git.read_text(errors="replace").partition(":")[2].strip()).resolve()
    head = _first_line(git / "HEAD")
    if _COMMIT.fullmatch(head):
        return head
    name = head.partition(":")[2].strip()
    common = git / _first_line(git / "commondir") if (git / "commondir").is_file() else git  # branches of a worktree
    return _first_line(common / name) if (common / name).is_file() else _packed(common / "packed-refs", name)


def _packed(file: Path, name: str) -> str:
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {name}")), "")


def _first_line(file: Path) -> str:
    return file.read_text(errors="replace").partition("\n")[0].strip()
