"""``rqmem restart``: restarts workers, one after another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
from redis import Redis
from redis.exceptions import RedisError

from rqmem.acting import Done
from rqmem.cli.options import parsed
from rqmem.cli.terminal import acting, connected, redis_options, show
from rqmem.config.parsers import duration
from rqmem.errors import UnknownName
from rqmem.observe.snapshot import worker_names
from rqmem.observe.vocabulary import versioned
from rqmem.store import restarting
from rqmem.store.retrying import unavailable
from rqmem.text import did_you_mean, json_text
from rqmem.values import dataclass

_LOOK_SECONDS = 0.1
_TIMEOUT_SECONDS = 600.0
_AWAY_SECONDS = 30.0


@dataclass(frozen=True)
class RestartOutcome:
    """What became of one worker. ``outcome``: ``restarted``, or why not."""

    name: str
    outcome: str
    seconds: float = 0.0

    @property
    def well(self) -> bool:
        return self.outcome == "restarted"


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--timeout", default=f"{_TIMEOUT_SECONDS:.0f}",
    help="Wait so long for one worker: for its job to end, and for it to be back.",
    **parsed("TIME", duration),
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
@redis_options
def restart(names: tuple[str, ...], timeout: float, as_json: bool, url: str | None) -> None:
    """Restart workers, one after another: all of rqmem on this Redis, or those named.

    Each finishes what it has in hand: its job, or the chunk of a job that goes on elsewhere. Then it begins anew
    under its name, with the code that is on disk. Workers of a pool are forked by their parent, with the code that
    it has loaded. It stops at the first worker that does not come back.

    TIME is in seconds, or as in 90s, 10m, 2h.

    Exit code 1 when a worker was not restarted.
    """
    connection, _ = connected(url)
    done = []
    for each in _restarted(connection, _chosen(connection, names), timeout):
        done.append(each)
        if not as_json:
            show(f"worker {each.name} {_told(each)}")
    if not done and not as_json:
        show("no worker of rqmem is running here")
    restarted = [each.name for each in done if each.well]
    if restarted:
        acting(connection).note("restart", Done(f"restarted {', '.join(restarted)}"))
    if as_json:
        click.echo(json_text(versioned(workers=[
            {"name": each.name, "outcome": each.outcome, "restart_seconds": round(each.seconds, 3)} for each in done
        ])))  # fmt: skip
    if not all(each.well for each in done):
        raise SystemExit(1)


def _chosen(connection: Redis, names: tuple[str, ...]) -> list[str]:
    """Those named, else all of rqmem. Raises `UnknownName`."""
    registered = worker_names(connection)
    for name in names:
        if name not in registered:
            raise UnknownName(f"no worker is called {name!r}: {did_you_mean(name, registered, 'see rqmem status')}")
    lives = {name: restarting.life(connection, name) for name in registered}
    return list(dict.fromkeys(names)) or [name for name, life in lives.items() if life is not None and life.way]


def _restarted(connection: Redis, names: list[str], timeout_seconds: float) -> Iterator[RestartOutcome]:
    """What became of each, up to the first that did not come back."""
    for name in names:
        before, began = restarting.life(connection, name), time.monotonic()
        if before is None:
            yield RestartOutcome(name, "it has ended meanwhile")
        elif not before.way:
            yield RestartOutcome(name, "it is a stock rq worker, or of an older rqmem")
        elif before.way == "none":
            yield RestartOutcome(name, "it is part of another program, which it must not restart")
        elif not restarting.tell(connection, name):
            yield RestartOutcome(name, "it hears no commands: see whether it lives")
        else:
            came_back = _wait(connection, name, before, began + timeout_seconds)
            yield RestartOutcome(
                name, "restarted" if came_back else "it did not come back in time", time.monotonic() - began
            )
            if not came_back:
                return


def _wait(connection: Redis, name: str, before: restarting.Life, until: float) -> bool:
    """Whether it came back. A Redis that is away for a moment, as in a failover, is waited for."""
    answered = time.monotonic()
    while time.monotonic() < until:
        try:
            now = restarting.life(connection, name)
            answered = time.monotonic()
        except RedisError as error:
            if unavailable(error) is None or time.monotonic() - answered > _AWAY_SECONDS:
                raise
            now = None
        if now is not None and now.birth != before.birth:
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _told(each: RestartOutcome) -> str:
    return f"restarted in {each.seconds:.1f} s" if each.well else f"was not restarted: {each.outcome}"
