"""The log of rqmem: words for events, the formats of a line, and a file that may be rotated.

`words` says each event (pure), `lines` is the log as a subscriber of events, `formats` are text and JSON, `file` is
``--log-file``, `whole_lines` lets signal handlers log at any moment, `setup` is what commands do with all that. As a
library rqmem configures nothing: its lines go to the loggers below ``rqmem``, and the host application's `logging`
decides what becomes of them.
"""

from __future__ import annotations

from rqmem.log.formats import JsonFormatter, LogFormat, TextFormatter, say_who
from rqmem.log.lines import write_event
from rqmem.log.setup import borrow_handlers, configure, configure_by

__all__ = [
    "JsonFormatter", "LogFormat", "TextFormatter", "borrow_handlers", "configure", "configure_by", "say_who",
    "write_event",
]  # fmt: skip
