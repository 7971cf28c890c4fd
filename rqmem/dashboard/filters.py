"""What templates call: sizes, times, links. Pure but for links."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

from flask import Flask, url_for
from markupsafe import Markup

from rqmem import child_ids, text, units, words
from rqmem.dashboard import drawing
from rqmem.observe.pool_words import incident_words

_WHOLE_ID = 24
_MADE_BY_RQ = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![^-])")
_MISLEADING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_AFTER_DOTS = re.compile(r"(?<=[._])(?=\w)")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=_)(?=\w)")

UNKNOWN = "\N{EN DASH}"
"""Stands for what is not known."""


def add_to(app: Flask, versions: dict[str, str]) -> None:
    """Make them known. ``versions``: static file -> its version."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.finalize = shown
    app.jinja_env.filters.update(
        mb=mb, time=time_tag, span=text.span, duration=text.duration, short_id=short_id,
        number=number, percent=percent, counted=text.counted, tail=tail, leak=units.show_leak,
        sentence=sentence, incident=incident_words, short_words=words.short,
    )  # fmt: skip
    app.jinja_env.globals.update(
        asset=lambda name: url_for("static", filename=name, v=versions[name]),
        bar=drawing.bar, lane=drawing.lane, progress=drawing.progress, sparkline=drawing.sparkline,
        small_histogram=drawing.small_histogram, has_page=app.view_functions.__contains__,
    )  # fmt: skip


def shown(value: Any) -> Any:
    """What a template shows: of texts of others, what would turn the direction of reading is an escape.

    Links and forms name such a thing by its escape, and do not find it.
    """
    if isinstance(value, str) and not value.isprintable():
        return type(value)(_MISLEADING.sub(lambda found: found[0].encode("unicode_escape").decode(), value))
    return value


def mb(size_mb: float | None) -> str:
    """``1,250``, ``12.3``, and a dash for what is not known: a column of MB needs no more digits than that."""
    if size_mb is None or not math.isfinite(size_mb):
        return UNKNOWN
    return f"{size_mb:,.0f}" if abs(size_mb) >= 99.95 else f"{size_mb:,.1f}".removesuffix(".0")


def number(value: float | None) -> str:
    """A whole number with commas, and a dash for what is not known."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def percent(fraction: float | None) -> str:
    """``83 %``."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.0f} %"


@lru_cache(maxsize=1024)  # a page names each job type
def tail(job_type: str) -> Markup:
    """A dotted path with its last name first to see: the module faint, the name plain. It may break between words."""
    module, dot, name = job_type.rpartition(".")
    parts = Markup("<wbr>").join(_AFTER_DOTS.split(module + dot)), Markup("<wbr>").join(_WORDS.split(name))
    return Markup('<span class="module">{}</span><wbr>{}').format(*parts)


def short_id(job_id: str) -> str:
    """The beginning of an id that RQ has made; of one that somebody has chosen as much as tells it from others."""
    if _MADE_BY_RQ.match(job_id):
        return child_ids.short_id(job_id)
    return job_id if len(job_id) <= _WHOLE_ID else f"{job_id[:12]}…{job_id[-11:]}"


def sentence(words: str) -> str:
    """With a capital at the beginning, unless a name is there (``shop.Export leaks``), and a full stop at the end."""
    first = words.partition(" ")[0].rstrip(",:;.")
    end = "" if words.endswith("?") else "."
    return f"{words[:1].upper() if first.isalpha() else words[:1]}{words[1:].rstrip('.')}{end}"


def time_tag(at: float | None, form: str = "clock") -> Markup:
    """A time in UTC, which the page's script tells in the viewer's zone. ``form``: clock, date or ago."""
    if at is None:
        return Markup(UNKNOWN)
    stamp = text.timestamp(at)
    return Markup('<time datetime="{}" data-form="{}">{} UTC</time>').format(stamp, form, stamp[:19].replace("T", " "))
