"""``make bench``: whether the ceiling holds, against whom, and what it costs. Ten minutes; ``--short`` one.

Real workers on a Redis of its own. The figures are this machine's; compare ratios, not seconds. Ends with 1
when something is outside the budget of the design, and says what.
"""

from __future__ import annotations

import click

from rqmem.testing import adversaries, honest
from scripts.bench import adversary_table, costs, honest_table
from scripts.bench.measuring import end, own_redis
from scripts.bench.worker_runs import How, cgroup_modes

SHORT = (
    *("lists", "one_block", "memset_in_c", "calm_then_burst", "huge_pages", "four_threads", "a_new_session"),
    *("bare_except", "forked_pool", "recv_in_c_while_growing"),
)
SHORT_BREACHES = 50


@click.command()
@click.option("--memory", type=click.IntRange(64), default=128, show_default=True, help="Ceiling in MB.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs of each job.")
@click.option("--cgroup", type=click.Choice(["off", "auto", "require", "both"]), default="both", show_default=True,
              help="Passed to the worker; both: off, and require where a group can be made.")  # fmt: skip
@click.option("--isolation", type=click.Choice(["warm", "fork", "both"]), default="warm", show_default=True)
@click.option("--only", metavar="NAME", multiple=True, help="Only this job's row; may be repeated.")
@click.option("--short", is_flag=True, help="One run of what matters most, for CI.")
@click.option("--breaches", type=click.IntRange(1), default=500, show_default=True, help="Breaches in a row.")
def main(
    memory: int, runs: int, cgroup: str, isolation: str, only: tuple[str, ...], short: bool, breaches: int
) -> None:
    """Print the tables."""
    only = tuple(name.replace(" ", "_") for name in only)
    unknown = set(only) - {each.name for each in (*adversaries.ALL, *honest.ALL)}
    if unknown:
        raise click.UsageError(f"--only: no job is called {', '.join(sorted(unknown))}")
    names = only or (SHORT if short else ())
    chosen = [each for each in adversaries.ALL if not names or each.name in names]
    calm = [each for each in honest.ALL if not names or each.name in names]
    if short:
        runs, breaches = 1, min(breaches, SHORT_BREACHES)
    outside: list[str] = []
    with own_redis():
        click.echo(adversary_table.HEADER.strip())
        isolations = ["warm", "fork"] if isolation == "both" else [isolation]
        hows = [How(memory, kind, mode) for kind in isolations for mode in cgroup_modes(cgroup, memory)]
        for how in hows:
            if chosen:
                outside += adversary_table.table(how, chosen, runs)
            if calm:
                outside += honest_table.table(how, calm, runs)
        if not only:
            for how in hows:
                outside += costs.watching(how, *((3, 2) if short else (10, 6)))
                outside += costs.breaches_in_a_row(how, breaches)
    end(outside)


if __name__ == "__main__":
    main()
