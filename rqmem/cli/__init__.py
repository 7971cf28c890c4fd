"""The command line: one file a command, registered here, errors turned into one line and an exit code here.

Exit codes: 0 done, 1 failed at run time, 2 bad usage or configuration.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from rqmem.cli.redis import redis_group
from rqmem.cli.worker import worker
from rqmem.errors import RqmemError


class _Commands(click.Group):
    """A group that says what went wrong in one line, ours and click's own usage errors alike."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except RqmemError as error:
            code = _complain(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = error.exit_code
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "rqmem"
            code = _complain(f"{error.format_message().rstrip('.')} (see '{command} --help')", error.exit_code)
        except click.ClickException as error:
            code = _complain(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            code = _complain("interrupted", 1)
        sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, exit_code: int) -> int:
    click.echo(f"rqmem: {message}", err=True)
    return exit_code


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="rqmem")
def main() -> None:
    """Memory-safe background jobs for Python on RQ.

    Redis is chosen by --url, RQMEM_REDIS_URL or REDIS_URL; without any of
    them an embedded server is used, one for each directory.
    """


main.add_command(worker)
main.add_command(redis_group)
