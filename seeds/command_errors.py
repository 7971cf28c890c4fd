"""Errors of the seeding commands, as one line on stderr and an exit code instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy.exc import SQLAlchemyError

from rqmem.errors import RqmemError


@contextmanager
def one_line_errors(go_on: str) -> Iterator[None]:
    """Print an error of the block in one line, and end the process. ``go_on``: what to do after Ctrl-C."""
    try:
        yield
        return
    except RqmemError as error:
        message, code = str(error), error.exit_code
    except SQLAlchemyError as error:
        message, code = "database: " + " ".join(str(getattr(error, "orig", None) or error).split()), 1
    except BrokenPipeError:  # the reader has seen enough: click ends without a word
        raise
    except OSError as error:
        message, code = f"{error.filename or 'a file'}: {error.strerror}", 1
    except KeyboardInterrupt:
        message, code = f"cut off; {go_on}", 130
    click.echo(f"Error: {message}", err=True)
    raise SystemExit(code)
