"""Records whether Retell has accepted a batch: ``python -m scripts.settle_batch ID --sent`` (or ``--not-sent``).

For a batch whose fate the API could not tell (`jobs.campaign_batches`). Retell's dashboard shows batches by name.
"""

from __future__ import annotations

import click

from jobs import call_batches
from jobs.batch_sending import enqueue_follow_up
from jobs.campaign_batches import FollowUpCallBatchJob
from jobs.campaigns import complete, find
from jobs.sources import shared_sessions
from rqmem import connect
from seeds.command_errors import one_line_errors


@click.command()
@click.argument("batch_id")
@click.option("--sent/--not-sent", "sent", default=None, help="What Retell's dashboard says.")
def main(batch_id: str, sent: bool | None) -> None:
    """Settle the batch BATCH_ID."""
    with one_line_errors("settle_batch"):
        batch = call_batches.read(shared_sessions(), batch_id)
        if batch is None:
            raise click.UsageError(f"there is no batch {batch_id}: its campaign's figures say what became of it")
        campaign = find(shared_sessions(), batch.campaign_id)
        if batch.status != "unknown":
            raise click.UsageError(f"batch {batch_id} is {batch.status}: there is nothing to settle")
        if sent is None:
            name = call_batches.name_of(campaign, batch_id)
            raise click.UsageError(f"look for {name} in Retell's dashboard, then say --sent or --not-sent")
        if sent:
            connect(announce=lambda line: click.echo(line, err=True))  # it is there: after the mark it is too late
            call_batches.mark_sent(shared_sessions(), batch_id)
            enqueue_follow_up(FollowUpCallBatchJob, campaign, batch_id)
            click.echo("a follow-up collects its outcomes")
        else:
            call_batches.undo(shared_sessions(), batch_id)
            complete(shared_sessions(), campaign.id)
            click.echo(f"its customers are pending again: python -m scripts.enqueue_campaign {campaign.id} --batches")


if __name__ == "__main__":
    main()
