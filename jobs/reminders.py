"""Reminders of appointments, by type, each at its time and none twice.

For every type, a row for the appointment and the type is *claimed* before a message is sent, and *settled* after it. A
run that cannot claim the row leaves the message to the run that could, so runs may overlap. A claim that is never
settled comes from a run that was killed. Providers have no idempotency key, so nobody can know whether the customer got
that message. It is reported as ``unknown`` and never sent again. (Delete its row to have it sent again.)

Ten messages are claimed at a time and sent one after the other, since a transaction for each message took longer than
sending it. So a run that is killed leaves at most ten messages unknown. A run that ends in any other way (a breach, its
time limit, a provider that is down) leaves at most one: it records what it has sent, and gives back the rest.

If a provider refuses many messages in a row, it may refuse us, or only these addresses (for example all of a country).
The run cannot tell, so it stops and leaves these messages *doubted*. Later runs send them after all others. If the
provider has taken one of the others by then, what it refuses again stays refused.

Run the job every few minutes. A message that could not be sent, because a provider was down or a customer's time zone
is not known, is looked at by each run until the appointment begins.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from rq import Retry

from jobs.reminder_claims import (
    AT_ONCE,
    claim,
    count,
    due,
    report_unconfirmed,
    settle,
    take_back_refusals,
    write_skipped,
)
from jobs.reminder_sending import PAUSES, REFUSED_IN_A_ROW, Answer, channels, trouble_in, variable
from jobs.reminder_types import check_zones, decide, types_named, zone_called
from jobs.sources import shared_sessions
from jobs.tables import Appointment, utc_now
from rqmem import MemoryAwareJob
from rqmem.errors import ConfigError, RqmemError

_log = logging.getLogger(__name__)


class ProviderDown(RqmemError):
    """A provider takes no messages. A later run sends them, if that is not too late."""


class SendAppointmentReminderJob(MemoryAwareJob):
    """Send the reminders that are due, of the types named, or of all that have a URL (`jobs.reminder_sending`).

    Returns how many reminders of each type it sent, and did not send; ``{"due": 0}`` for a type of which none was due.
    Trouble with one provider does not stop the other types; the job fails when they are done.
    """

    memory_limit_mb = 128
    chunk_size = 100
    on_breach = "resume"
    queue = "reminders"
    job_timeout = 3600
    retry = Retry(max=3)
    pauses: ClassVar[Sequence[float]] = PAUSES
    trouble: RqmemError | None = None  # with the current channel
    doubted = took_one = False  # what is sent now; whether the channel took a message in this run

    def handle(self, types: list[str] | str | None = None) -> dict[str, dict[str, int]]:
        names = [types] if isinstance(types, str) else types
        chosen = None if names is None else types_named(names)
        check_zones()
        self.sessions = shared_sessions()
        failures: list[RqmemError] = []
        with channels(chosen, os.environ) as all_channels:
            report_unconfirmed(self.sessions, self.run_id, utc_now(), _log)
            for channel in all_channels:
                self.channel, self.trouble, self.took_one = channel, None, False
                for doubted in (False, True):  # both, whatever happens: a run that is resumed knows them by number
                    self.doubted, self.answers = doubted, deque[Answer](maxlen=REFUSED_IN_A_ROW)
                    try:
                        rows = due(self.sessions, channel.rule, utc_now(), doubted=doubted)
                        self.process_in_chunks(rows, self.remind, collect=False)
                    except (ProviderDown, ConfigError) as error:
                        self.trouble = error
                if self.trouble is not None:
                    failures.append(self.trouble)
                self.check_memory_usage(f"reminders_{channel.rule.name}")
        if failures:
            kind = ConfigError if any(isinstance(each, ConfigError) for each in failures) else ProviderDown
            raise kind("; ".join(str(each) for each in failures))
        none_due = {channel.rule.name: {"due": 0} for channel in all_channels}
        return none_due | count(self.sessions, self.run_id)

    def remind(self, appointments: list[Appointment]) -> None:
        if self.trouble is not None:
            raise self.trouble
        rule, wanted, skipped = self.channel.rule, [], []
        for each in appointments:
            decision = decide(rule, each.starts_at, each.time_zone, getattr(each, rule.address), utc_now())
            if decision.action == "skip":
                skipped.append((each, decision.why))
            elif decision.action == "send":
                wanted.append(each)
        write_skipped(self.sessions, rule, skipped, self.run_id, utc_now())
        for begin in range(0, len(wanted), AT_ONCE):
            self.send(claim(self.sessions, rule, wanted[begin : begin + AT_ONCE], self.run_id, utc_now()))

    def send(self, claimed: Sequence[Appointment]) -> None:
        """Send these reminders and settle each, also those that were not sent because an earlier one failed."""
        rule, begun, trouble = self.channel.rule, 0, ""
        outcomes: list[tuple[Appointment, Answer]] = []
        try:
            for each in claimed:
                begun += 1
                answer = self.send_one(each)
                outcomes.append((each, answer))
                self.answers.append(answer)
                self.took_one |= answer.status == "sent"
                trouble = trouble_in(list(self.answers), takes_others=self.doubted and self.took_one)
                if trouble:
                    break
        finally:  # a message without an answer stays claimed: nobody knows whether it was taken
            not_sent = Answer("doubted" if self.doubted else "postponed", "the run ended before it was sent")
            outcomes += [(each, not_sent) for each in claimed[begun:]]
            settle(self.sessions, rule, outcomes, self.run_id, utc_now())
        if trouble == "key":
            take_back_refusals(self.sessions, rule, self.run_id)
            raise ConfigError(f"{rule.name}: {self.provider} takes nothing from us ({answer.why}): check the URL")
        if trouble == "down":
            raise ProviderDown(f"{rule.name}: {self.provider} takes no messages ({answer.why}); a later run sends them")

    def send_one(self, appointment: Appointment) -> Answer:
        rule, zone = self.channel.rule, zone_called(appointment.time_zone)
        assert zone is not None  # or it would have been skipped
        title, body = rule.message(appointment.name, appointment.title, appointment.starts_at, zone)
        return self.channel.send(getattr(appointment, rule.address), title, body, self.pauses)

    @property
    def provider(self) -> str:
        return f"the provider of {variable(self.channel.rule)}"
