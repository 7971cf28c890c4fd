"""The command line: one file a command, registered here, errors turned into one line and an exit code here.

Exit codes: 0 done, 1 failed at run time, 2 bad usage or configuration, 3 alerts were raised (`monitor`).
"""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from redis.exceptions import NoPermissionError, RedisError

from rqmem.errors import RqmemError
from rqmem.text import did_you_mean, printable

_COMMANDS = {
    "alerts": ("alerts.alerts_group", "Show alerts, and send them on."),
    "cancel": ("cancel.cancel", "Cancel a job and all its children."),
    "config": ("config.config", "Show settings, and where each came from."),
    "dashboard": ("dashboard.dashboard", "Serve the dashboard for a browser."),
    "doctor": ("doctor.doctor", "Check this machine, its Redis and a real worker."),
    "enqueue": ("enqueue.enqueue", "Enqueue a job from a shell."),
    "exporter": ("exporter.exporter", "Serve Prometheus metrics."),
    "inspect": ("inspect.inspect_job", "Tell the story of one job: memory, breaches, resumes."),
    "journal": ("journal.journal_group", "See how large the journal is, or forget it."),
    "monitor": ("monitor.monitor", "Watch memory live, and report on it."),
    "pause": ("pause.pause", "Let workers take no more jobs from a queue."),
    "pool": ("pool.pool", "Run several workers, forked from one parent."),
    "recommend": ("recommend.recommend", "Recommend ceilings, chunk sizes and split thresholds."),
    "redis": ("redis.redis_group", "Start, stop and look at the embedded Redis."),
    "report": ("report.report", "Report on what job types used, and whether it gets worse."),
    "restart": ("restart.restart", "Restart workers, one after another."),
    "resume": ("pause.resume", "Let workers take jobs from a paused queue again."),
    "retry": ("cancel.retry", "Run a failed job once more."),
    "status": ("status.status", "Show what runs, what is wrong, and what to do."),
    "top": ("top.top", "Watch one worker's memory by line of code."),
    "worker": ("worker.worker", "Run jobs, each under a memory ceiling."),
}
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80, "show_default": True}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Commands(click.Group):
    """A group that says what went wrong in one line, ours and click's own usage errors alike.

    Each command is imported when it is asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name not in ("worker", "pool") and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letter shows a question mark
        module, _, name = _COMMANDS[cmd_name][0].partition(".")
        command: click.Command = getattr(import_module(f"rqmem.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Replaces click's, which would import each command for its first line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError:
            if near := did_you_mean(args[0], _COMMANDS):
                raise click.UsageError(f"No such command {args[0]!r}: {near}", ctx) from None
            raise
        if command is not None:
            _refuse_swallowed(click.Context(command, ctx, name), rest)
        return name, command, rest

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if sys.stdout is None:  # closed by who started us, as some init scripts do
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (as long as the process)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except RqmemError as error:
            code = _complain(str(error), error.exit_code)
        except NoPermissionError as error:
            from rqmem.store.permission import explained

            code = _complain(explained(error), 1)
        except RedisError as error:  # it answered when the command began
            from rqmem.store.retrying import described

            code = _complain(f"Redis does not answer any more, or refuses: {described(error)}", 1)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = error.exit_code
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "rqmem"
            code = _complain(f"{error.format_message().rstrip('.')} (see '{command} --help')", error.exit_code)
        except click.ClickException as error:
            code = _complain(error.format_message(), error.exit_code)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = error.filename or "the output"
            code = _complain(f"{where} could not be written: {error.strerror}; what is there is not whole", 1)
            write_no_more()
        except UnicodeEncodeError as error:
            alien = next((text for text in sys.argv[1:] if text.encode(errors="replace").decode() != text), None)
            if alien is None:
                raise
            code = _complain(f"{alien!r} is no text in UTF-8, as all names are: {error.reason}", 2)
        except UnicodeDecodeError as error:
            code = _complain(f"a name in Redis is no text in UTF-8: {error.object[:80]!r}; remove that key", 1)
        except (click.Abort, KeyboardInterrupt):
            code = _complain("interrupted", 1)
        sys.exit(code if isinstance(code, int) else 0)


def _refuse_swallowed(ctx: click.Context, args: list[str]) -> None:
    """Refuse an option whose value is another option of the command: the value was forgotten. Raises `UsageError`.

    click would take ``--wait`` for the queue in ``--queue --wait 5``. Who means that writes ``--queue=--wait``.
    """
    options = {
        name: each
        for each in ctx.command.get_params(ctx)
        if isinstance(each, click.Option)
        for name in (*each.opts, *each.secondary_opts)
    }
    given = iter(args)
    for arg in given:
        if arg == "--":
            return
        option = options.get(arg)
        if option is None or option.is_flag or option.count:
            continue
        if (value := next(given, None)) in options and not option._flag_needs_value:
            long = "" if arg.startswith("--") else f" ({option.opts[0]})"
            raise click.UsageError(f"{arg}{long} needs a value, and {value!r} is an option of its own", ctx)


def write_no_more() -> None:
    """Let stdout be nobody's. What could not be written would be tried again at the exit, with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, exit_code: int) -> int:
    click.echo(f"rqmem: {printable(message)}", err=True)
    return exit_code


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(package_name="rqmem")
def main() -> None:
    """Memory-safe background jobs for Python on RQ.

    Redis is chosen by --url, RQMEM_REDIS_URL, RQ's settings file (-c),
    RQ_REDIS_URL or REDIS_URL, in this order; without any of them an embedded
    server is used, one for each directory.
    """
