"""Enqueues a seeded campaign, as an application would: ``python -m scripts.enqueue_campaign 1``."""

from __future__ import annotations

import click

import rqmem
from jobs.campaign_batches import ProcessRetellAICampaignBatchJob
from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.database import open_sessions
from jobs.exports import ExportCallPlanJob
from jobs.tables import Campaign
from seeds.command_errors import one_line_errors


@click.command()
@click.argument("campaign_id", type=int)
@click.option("--call-plan", type=click.Path(), help="Also export the call plan to this CSV file, first.")
@click.option("--batches", is_flag=True, help="Call in batches. Run again to follow up batches that were left.")
@click.option("--queue", metavar="NAME", help="Instead of the jobs' own.")
def main(campaign_id: int, call_plan: str | None, batches: bool, queue: str | None) -> None:
    """Enqueue the campaign CAMPAIGN_ID; prints the ids of the jobs."""
    with one_line_errors("enqueue_campaign"):
        with open_sessions()() as session:
            if session.get(Campaign, campaign_id) is None:
                raise click.UsageError(f"campaign {campaign_id} does not exist: python -m seeds.campaign makes one")
        connection = rqmem.connect(announce=lambda line: click.echo(line, err=True))
        if call_plan:
            plan = ExportCallPlanJob.enqueue(queue, campaign_id=campaign_id, path=call_plan, connection=connection)
            click.echo(plan.id)
        job_class = ProcessRetellAICampaignBatchJob if batches else ProcessRetellAICampaignJob
        click.echo(job_class.enqueue(queue, campaign_id=campaign_id, connection=connection).id)


if __name__ == "__main__":
    main()
