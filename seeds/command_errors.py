"""Errors of commands, as one line on stderr and an exit code instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from rqmem.errors import RqmemError


@contextmanager
def one_line_errors(name: str = "Error", go_on: str = "") -> Iterator[None]:
    """Print an error of the block in one line, which begins with ``name``, and end the process.

    ``go_on``: what to do after Ctrl-C; empty: click says that it was interrupted.
    """
    try:
        yield
        return
    except RqmemError as error:
        message, code = str(error), error.exit_code
    except RedisError as error:
        message, code = f"Redis went away: {_one_line(error)}", 1
    except SQLAlchemyError as error:
        message, code = f"database: {_one_line(getattr(error, 'orig', None) or error)}", 1
    except BrokenPipeError:  # the reader has seen enough: click ends without a word
        raise
    except OSError as error:  # a full disk
        message, code = f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}", 1
    except KeyboardInterrupt:
        if not go_on:
            raise
        message, code = f"cut off; {go_on}", 130
    click.echo(f"{name}: {message}", err=True)
    raise SystemExit(code)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
