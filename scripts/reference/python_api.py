"""The public names of the package with their signatures and docstrings. griffe reads the code; nothing is imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import griffe

from scripts.harness import ROOT
from scripts.reference.markdown import block, cell, code, prose, table

PUBLIC: dict[str, tuple[str, ...]] = {
    "rqmem": (),
    "rqmem.api": (),
    "rqmem.hooks": ("horse_started", "before_job", "after_job", "horse_ending", "on"),
    "rqmem.sources": (),
    "rqmem.testing": (),
    "rqmem.testing.fixtures": ("memory_worker", "RealWorker", "Outcome"),
    "rqmem.serializers": ("Signed", "SignedJSON"),
    "rqmem.integrations": ("LIBRARIES",),
    "rqmem.dashboard": ("create_app",),
    "rqmem.dashboard.mounting": ("blueprint", "asgi_app"),
    "rqmem.prometheus": ("wsgi_app", "collector"),
    "rqmem.errors": (),
}
"""Module -> its names, in this order; none: its ``__all__``, or all of its classes for `rqmem.errors`."""

_INTERNAL_METHODS = ("check_path", "check_arguments", "to_entry", "from_entry")
_INTERNAL_ERRORS = ("HorseTooHeavy", "SplitInstead", "PlannedStop", "ChildFailure")  # they never leave rqmem
_OPTIONS: griffe.GoogleOptions = {"returns_multiple_items": False, "returns_named_value": False, "warnings": False}


def page() -> str:
    package = griffe.load("rqmem", search_paths=[ROOT], docstring_parser="google", docstring_options=_OPTIONS)
    text = "\n\n".join(_module(package, path) for path in PUBLIC)
    ruff = [sys.executable, "-m", "ruff", "format", "--preview", "--stdin-filename=python.md", "-"]
    return subprocess.run(ruff, cwd=ROOT, input=text, capture_output=True, text=True, check=True).stdout.strip()


def names(module: Any, path: str) -> list[str]:
    if path == "rqmem.errors":
        return [
            name
            for name, each in module.members.items()
            if not each.is_alias and each.is_class and name not in _INTERNAL_ERRORS
        ]
    return list(PUBLIC[path] or map(str, module.exports))


def _module(package: Any, path: str) -> str:
    module = package if path == "rqmem" else package[path.removeprefix("rqmem.")]
    about = "" if path == "rqmem" else prose(_first_part(module.docstring.value))
    sections = [_name(package, module, path, name) for name in names(module, path)]
    return "\n\n".join([f"## {path}", *([about] if about else []), *sections])


def _first_part(docstring: str) -> str:
    """Without what is for readers of the code: from the reading order on, and what it raises."""
    for end in ("Reading order", "\nParts:", "\nRaises:"):
        docstring = docstring.partition(end)[0]
    return docstring.strip()


def _name(package: Any, module: Any, path: str, name: str) -> str:
    found = _resolved(package, module, name)
    title = f"### {path}.{name}"
    if found.is_class:
        return "\n\n".join([title, *_class(found, name, errors=path == "rqmem.errors")])
    if found.is_function:
        return "\n\n".join([title, *_function(found)])
    value = block(f"{name} = {found.value}", "python")
    return "\n\n".join([title, value, *([prose(found.docstring.value)] if found.docstring else [])])


def _resolved(package: Any, module: Any, name: str) -> Any:
    found = module[name]
    if found.is_alias:
        target = found.target_path.removeprefix("rqmem.")
        return package[target]
    return found


def _class(found: Any, name: str, *, errors: bool) -> Iterator[str]:
    bases = ", ".join(str(base).rpartition(".")[2] for base in found.bases)
    initial = found.members.get("__init__")
    inside = textwrap.indent(f"\n{_signature(initial)}", "    ") if initial is not None and not errors else " ..."
    yield block(f"class {name}{f'({bases})' if bases else ''}:{inside}", "python")
    yield from _docstring(found)
    if errors:
        return
    if initial is None and not _documents_attributes(found):
        fields = [
            each
            for each in found.members.values()
            if each.is_attribute and each.is_public and each.annotation is not None
        ]
        if fields:
            yield table(("attribute", "type"), [(code(each.name), code(str(each.annotation))) for each in fields])
    for each in _methods(found):
        yield "\n\n".join([f"#### {name}.{each.name}", *_function(each)])


def _methods(found: Any) -> Iterable[Any]:
    """Its public methods, those of its bases in rqmem first; not those that Python or RQ call."""
    inherited: dict[str, Any] = {}
    for base in _bases_of_ours(found):
        inherited.update({each.name: each for each in base.members.values() if _is_for_users(each)})
    own = {each.name: each for each in found.members.values() if _is_for_users(each)}
    return {**inherited, **own}.values()


def _bases_of_ours(found: Any) -> Iterator[Any]:
    for base in found.bases:
        target = getattr(base, "canonical_path", str(base))
        if target.startswith("rqmem.") and not target.startswith("rqmem.rq_names."):
            yield found.package[target.removeprefix("rqmem.")]


def _is_for_users(member: Any) -> bool:
    if (
        member.is_alias
        or not member.is_function
        or member.name.startswith("_")
        or not member.docstring
        or member.name in _INTERNAL_METHODS
    ):
        return False
    return not member.docstring.value.startswith(("RQ's ", "RQ calls", "Replaces RQ"))


def _function(found: Any) -> Iterator[str]:
    variants = getattr(found, "overloads", None) or []
    kind = next((f"@{label}\n" for label in ("classmethod", "staticmethod", "property") if label in found.labels), "")
    yield block("\n".join(kind + _signature(each) for each in variants or [found]), "python")
    yield from _docstring(found)


def _signature(found: Any) -> str:
    return f"def {found.signature(name=found.name)}: ..."


def _documents_attributes(found: Any) -> bool:
    return any(section.kind.value == "attributes" for section in _sections(found))


def _sections(found: Any) -> list[Any]:
    return found.docstring.parsed if found.docstring else []


def _docstring(found: Any) -> Iterator[str]:
    for section in _sections(found):
        kind = section.kind.value
        if kind == "text":
            yield prose(section.value)
        elif kind in ("parameters", "attributes"):
            rows = [(", ".join(map(code, names_of(each))), cell(each.description)) for each in section.value]
            yield table((kind.removesuffix("s"), "meaning"), rows)
        elif kind == "raises":
            yield table(
                ("raises", "when"), [(code(str(each.annotation)), cell(each.description)) for each in section.value]
            )
        elif kind in ("returns", "yields"):
            [value] = section.value
            begins = f"{value.annotation}: " if isinstance(value.annotation, str) else ""  # not the signature's: text
            yield f"{kind.capitalize()}: {begins}{cell(value.description)}"
        else:
            raise ValueError(f"{found.path}: a docstring section of kind {kind!r} has no form in the reference")


def names_of(documented: Any) -> list[str]:
    """The names in ``a, b: ...``; griffe takes all after the first for a type."""
    first = str(documented.name)
    more = str(documented.annotation) if first.endswith(",") else ""
    return [name.strip() for name in f"{first}{more.strip('()')}".split(",")]
