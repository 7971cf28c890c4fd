"""Whether modules that are to be preloaded leave threads running: they are imported in a short-lived fork."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict

from rqmem.config.settings import Config
from rqmem.errors import ConfigError
from rqmem.measure.left_threads import Preloaded, imported, warning
from rqmem.observe.problems import Finding
from rqmem.values import dataclass


@dataclass(frozen=True)
class Looked:
    """What each module left, up to the one that cannot be imported; ``error`` says why, "" where all can."""

    found: tuple[Preloaded, ...]
    error: str = ""


def look(modules: Iterable[str]) -> Looked:
    """Import them in a fork of this process."""
    answer, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        found, error = [], ""
        sys.path.insert(0, os.getcwd())  # noqa: PTH109  as a worker does
        try:
            for each in imported(modules):
                found.append(asdict(each))
        except ConfigError as raised:
            error = str(raised)
        finally:
            os.write(say, json.dumps([found, error]).encode())
            os._exit(0)
    os.close(say)
    with os.fdopen(answer, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    if not text:
        return Looked((), "a module ended the process that imported it")
    told, error = json.loads(text)
    return Looked(tuple(Preloaded(**{**each, "names": tuple(each["names"])}) for each in told), error)


def check_preload(looked: Looked, config: Config) -> list[Finding]:
    findings = [_of_module(each, config) for each in looked.found]
    if looked.error:
        findings.append(Finding("import", "problem", looked.error, "the worker does not start with it"))
    return findings


def _of_module(each: Preloaded, config: Config) -> Finding:
    if each.openmp_threads and config.preload_openmp == "refuse":
        return Finding("OpenMP", "problem",
            f"{each.module} leaves an OpenMP pool of {each.openmp_threads} threads: horses would hang",
            "compute nothing while it is imported, or give --preload-openmp end; the worker does not start as it is",
        )  # fmt: skip
    if each.other_threads:
        text, _, advice = warning(each).rpartition("; ")
        return Finding("threads", "note", text, advice)
    return Finding("threads", "ok", f"{each.module} leaves none that a fork would miss")
