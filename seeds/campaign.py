"""Seeds the database with one campaign: ``python -m seeds.campaign --customers 2000 --seed 7``.

It needs the same memory for two thousand customers and for a million. Customers are committed batch by batch. Until the
last one is written the campaign has the status ``seeding``, so a run that was cut off leaves no campaign that looks
complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from sqlalchemy import insert, update
from sqlalchemy.engine import Engine

from jobs.database import create_schema, open_database
from jobs.tables import Campaign, Customer
from seeds.command_errors import one_line_errors
from seeds.customers import customers
from seeds.filling import batches
from seeds.phone_numbers import FROM_NUMBER, is_e164

BATCH_SIZE = 1000


@dataclass(frozen=True)
class Seeded:
    campaign_id: int
    customers: int
    valid_numbers: int

    def summary(self) -> str:
        noun = "customer" if self.customers == 1 else "customers"
        valid = f"({self.valid_numbers:,} with valid numbers)"
        return f"campaign {self.campaign_id}: {self.customers:,} {noun} {valid}"


def seed_campaign(
    engine: Engine,
    *,
    count: int,
    seed: int,
    name: str = "",
    from_number: str = FROM_NUMBER,
    agent_id: str | None = None,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], object] = lambda rows: None,
) -> Seeded:
    """Write a new campaign with ``count`` customers; the schema must exist.

    ``on_batch`` is called with the number of rows after each commit. An error on the way leaves a campaign with the
    status ``seeding``.
    """
    name = name or f"Seed {seed}, {count:,} customers"
    campaign = insert(Campaign).values(name=name, from_number=from_number, agent_id=agent_id, status="seeding")
    with engine.connect() as connection:
        campaign_id: int = connection.execute(campaign.returning(Campaign.id)).scalar_one()
        connection.commit()
        valid = 0
        for batch in batches(customers(seed, count), batch_size):
            connection.execute(insert(Customer), [{"campaign_id": campaign_id, **row} for row in batch])
            connection.commit()
            valid += sum(is_e164(row["phone"]) for row in batch)
            on_batch(len(batch))
        connection.execute(update(Campaign).where(Campaign.id == campaign_id).values(status="pending"))
        connection.commit()
    return Seeded(campaign_id, count, valid)


@click.command()
@click.option("--customers", "count", type=click.IntRange(1), default=2000, show_default=True, help="How many to make.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="The same: same customers.")
@click.option("--name", default="", help="Name of the campaign; made from the figures if not given.")
@click.option("--from-number", default=FROM_NUMBER, show_default=True, help="The caller's number, in E.164.")
@click.option("--agent-id", help="Retell agent that makes the calls; the number's own if not given.")
@click.option("--database-url", help="Instead of DATABASE_URL; by default sqlite:///rqmem-app.db.")
@click.option("--quiet", is_flag=True, help="Print the campaign's id alone, and no progress.")
def main(count: int, from_number: str, database_url: str | None, quiet: bool, **campaign: Any) -> None:
    """Create the schema and one campaign with made-up customers.

    About 2 % of the phone numbers are invalid, as in life. The last line on stdout names the campaign.
    """
    if not is_e164(from_number):
        raise click.BadParameter(f"{from_number!r} is not E.164, like {FROM_NUMBER}", param_hint="'--from-number'")
    with one_line_errors(go_on="the campaign stays as it is, and no job runs it"):
        engine = open_database(database_url)
        create_schema(engine)
        hidden = quiet or not sys.stderr.isatty()
        with click.progressbar(length=count, label="customers", file=sys.stderr, hidden=hidden) as bar:
            seeded = seed_campaign(engine, count=count, from_number=from_number, on_batch=bar.update, **campaign)
    click.echo(seeded.campaign_id if quiet else seeded.summary())


if __name__ == "__main__":
    main(prog_name="python -m seeds.campaign")
