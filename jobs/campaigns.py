"""Outbound call campaigns through Retell AI: one call to each customer, each exactly once.

A customer's outcome and the campaign's cursor are written in one transaction right after the call. A
crash between the two repeats one call at most, with the same idempotency key, which the API answers
with the call it already made. So the job may be run again at any time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rq import Retry
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from jobs.database import Campaign, Customer, CustomerStatus, open_sessions, utc_now
from jobs.sources import Customers
from rqmem import MemoryAwareJob
from rqmem.errors import ConfigError

if TYPE_CHECKING:
    from retell import Retell

API_RETRIES = 5  # by the SDK, with back-off and Retry-After; given per call, since the SDK makes none for calls


class ProcessRetellAICampaignJob(MemoryAwareJob):
    """Call every pending customer of a campaign, then complete the campaign with its figures."""

    memory_limit_mb = 512
    chunk_size = 50
    on_breach = "resume"
    queue = "campaigns"
    job_timeout = 3600
    retry = Retry(max=3)

    def handle(self, campaign_id: int) -> dict[str, int]:
        self.sessions = open_sessions()
        self.campaign_id = campaign_id
        campaign = start(self.sessions, campaign_id)
        self.from_number = campaign.from_number
        self.key = f"campaign-{campaign_id}-{campaign.created_at:%Y%m%d%H%M%S%f}"  # ids come again in a new database
        with retell_client() as client:
            self.client = client
            pending = Customers(self.sessions, Customer.campaign_id == campaign_id, Customer.status == "pending")
            self.process_in_chunks(pending, self.call_all, collect=False)
        figures = complete(self.sessions, campaign_id)
        self.check_memory_usage("campaign_completion")
        return figures

    def call_all(self, customers: list[Customer]) -> None:
        for customer in customers:
            call_id, failure = self.call(customer)
            self.check_memory_usage("api_call")
            record(self.sessions, customer, call_id, failure)
            self.check_memory_usage(f"customer_processing_{customer.id}")

    def call(self, customer: Customer) -> tuple[str | None, str | None]:
        """The id of the call, or why the API refused this customer; other errors end the job."""
        import retell

        try:
            response = self.client.call.create_phone_call(
                from_number=self.from_number,
                to_number=customer.phone,
                idempotency_key=f"{self.key}-customer-{customer.id}",
                metadata={"campaign_id": self.campaign_id, "customer_id": customer.id},
                retell_llm_dynamic_variables={"name": customer.name, "language": customer.language},
                max_retries=API_RETRIES,
            )
        except (retell.BadRequestError, retell.UnprocessableEntityError) as error:
            return None, reason(error)
        except (retell.AuthenticationError, retell.PermissionDeniedError) as error:
            raise ConfigError(f"Retell refuses RETELL_API_KEY: {reason(error)}") from None
        return response.call_id, None


def start(sessions: sessionmaker[Session], campaign_id: int) -> Campaign:
    """The campaign, marked as running. Raises `ConfigError`."""
    with sessions.begin() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise ConfigError(f"campaign {campaign_id} does not exist; python -m seeds.campaign makes one")
        if campaign.status == "seeding":
            raise ConfigError(f"campaign {campaign_id} is still being seeded, or its seeding was cut off")
        if campaign.status == "pending":
            campaign.status, campaign.started_at = "running", utc_now()
        return campaign


def record(sessions: sessionmaker[Session], customer: Customer, call_id: str | None, failure: str | None) -> None:
    """The customer's outcome and the campaign's cursor, in one transaction."""
    status: CustomerStatus = "called" if failure is None else "failed"
    outcome = {"status": status, "call_id": call_id, "failure": failure, "called_at": utc_now()}
    with sessions.begin() as session:
        session.execute(update(Customer).where(Customer.id == customer.id).values(outcome))
        session.execute(
            update(Campaign).where(Campaign.id == customer.campaign_id).values(last_customer_id=customer.id)
        )


def complete(sessions: sessionmaker[Session], campaign_id: int) -> dict[str, int]:
    """Close the campaign with its figures."""
    with sessions.begin() as session:
        counts = session.execute(
            select(Customer.status, func.count()).where(Customer.campaign_id == campaign_id).group_by(Customer.status)
        )
        by_status = dict(counts.tuples().all())
        campaign = session.get_one(Campaign, campaign_id)
        campaign.customers_called = by_status.get("called", 0)
        campaign.customers_failed = by_status.get("failed", 0)
        campaign.status = "completed"
        campaign.completed_at = campaign.completed_at or utc_now()
        return {"called": campaign.customers_called, "failed": campaign.customers_failed}


def retell_client() -> Retell:
    """The official client, which reads RETELL_API_KEY and RETELL_BASE_URL. Raises `ConfigError`."""
    if not os.environ.get("RETELL_API_KEY"):
        raise ConfigError("RETELL_API_KEY is not set: give the worker the key of your Retell account")
    from retell import Retell  # 70 MB: only where calls are made

    return Retell()


def reason(error: Exception) -> str:
    """What the API said, short."""
    body = getattr(error, "body", None)
    message = body.get("message") or body.get("error_message") if isinstance(body, dict) else None
    return str(message or error)[:200]
