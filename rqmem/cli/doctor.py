"""``rqmem doctor``: checks by `rqmem.doctor`, told group by group as they are made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping

import click

from rqmem.cli.terminal import redis_options, show
from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.connection import connect
from rqmem.doctor import checks, facts, preload_checks, redis_checks, redis_facts, report, selftest, selftest_checks
from rqmem.observe.problems import Finding, Mark, healthy

_COLOURS: dict[Mark, str] = {"ok": "green", "note": "yellow", "problem": "red"}
_COLUMNS = 110


@click.command()
@redis_options
@click.option("--no-redis", is_flag=True, help="Don't look at Redis.")
@click.option("--no-self-test", is_flag=True, help="Don't run jobs that breach.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, url: str | None, no_redis: bool, no_self_test: bool, as_json: bool) -> None:
    """Check whether jobs can run under a ceiling here.

    Looks at kernel, memory, cgroups and Redis, and says what to do where
    something is missing. Then a worker with a Redis of its own runs jobs that
    breach, and honest ones: that shows how accurately ceilings are kept here.
    It takes a few seconds (a minute at most, on a busy machine), and some
    450 MB of memory for a moment.

    Exit code 1 when there is a problem.
    """
    config = load(os.environ).config
    choice = None if no_redis else connect.choose_url(url)
    if choice is not None:
        connect.check(choice)
    groups: dict[str, list[Finding]] = {}
    for group, found in _groups(config, os.environ, url, redis=not no_redis, self_test=not no_self_test):
        groups[group] = found
        if not as_json:
            columns = min(_COLUMNS, shutil.get_terminal_size((_COLUMNS, 24)).columns)
            show(*report.group_lines(group, found, columns, lambda text, mark: click.style(text, fg=_COLOURS[mark])))
    findings = [each for found in groups.values() for each in found]
    click.echo(report.to_json(groups) if as_json else report.summary(findings))
    ctx.exit(0 if healthy(findings) else 1)


def _groups(
    config: Config, environ: Mapping[str, str], url: str | None, *, redis: bool, self_test: bool
) -> Iterator[tuple[str, list[Finding]]]:
    machine, memory = facts.read_machine(), facts.read_memory()
    yield "Machine", checks.check_machine(machine)
    yield "Memory", checks.check_memory(memory, config)
    if machine.platform == "linux":
        yield "Kernel layer", checks.check_kernel_layer(facts.read_kernel_layer(environ), config)
    if machine.has_fork and config.preload:
        yield "Preload", preload_checks.check_preload(preload_checks.look(config.preload), config)
    if redis:
        yield "Redis", redis_checks.check_redis(redis_facts.read_redis(url))
    if not self_test:
        return
    tested: selftest.SelfTest | selftest.NotTested
    if machine.idle_bytes is None or not machine.has_pidfd:
        tested = selftest.NotTested("no worker could keep a ceiling here, see Machine")
    else:
        tested = selftest.run(machine.idle_bytes, memory.available_bytes, config, environ)
    yield "Self-test", selftest_checks.check_self_test(tested)
