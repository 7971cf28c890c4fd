"""The types of reminders: when each is sent, to which address, and what it says. Pure: the time is an argument.

A new type is one more `ReminderType` in `REMINDER_TYPES`, and a URL in the environment (`jobs.reminder_sending`).

Hours before an appointment are elapsed hours, even if clocks are changed in between. Quiet hours follow the customer's
local time. A reminder that would come in quiet hours waits for their end if that is early enough; otherwise it comes an
hour before they begin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Literal
from zoneinfo import ZoneInfo

from jobs.phone_numbers import E164
from rqmem.errors import ConfigError
from rqmem.text import did_you_mean

EVENING = timedelta(hours=1)  # before the quiet hours begin: time enough for a run that is late
LONGEST_NAME = 60  # characters of names and titles that are shown

_EMAIL = re.compile(r"[^\s@,;<>\"]{1,64}@[^\s@,;<>\"]{1,255}")
_TOKEN = re.compile(r"[A-Za-z0-9_:.\-]{8,4096}")


@dataclass(frozen=True)
class QuietHours:
    """From ``begin`` until before ``end``, by the clock on the wall; over midnight where ``end`` is the earlier."""

    begin: time
    end: time

    def covers(self, moment: datetime, zone: ZoneInfo) -> bool:
        now = moment.astimezone(zone).time()
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def end_after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """When the quiet hours end that cover ``moment``, in UTC."""
        local = moment.astimezone(zone)
        day = local.date() if local.time() < self.end else local.date() + timedelta(days=1)
        end = _in_utc(day, self.end, zone)
        # Where clocks are set back the end may come twice, and this be the hour between.
        return end if end > moment else _in_utc(day, self.end, zone, fold=1)

    def begin_before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """When the quiet hours began that cover ``moment``, in UTC."""
        local = moment.astimezone(zone)
        day = local.date() if local.time() >= self.begin else local.date() - timedelta(days=1)
        return _in_utc(day, self.begin, zone)

    @property
    def longest(self) -> timedelta:
        """How long they may last: what the clock says, and an hour where it is set back."""
        whole = timedelta(hours=self.end.hour - self.begin.hour, minutes=self.end.minute - self.begin.minute)
        return whole % timedelta(days=1) + timedelta(hours=1)


@dataclass(frozen=True)
class ReminderType:
    """One way to remind.

    Attributes:
        name: in arguments, tables and the environment.
        address: the column of the appointment that has it; empty: the customer wants none of this type.
        valid: what an address looks like.
        before: when it is sent, before the appointment begins.
        latest: it is of no use when less than this is left.
        title, body: with ``{name}``, ``{title}`` and ``{when}`` in them.
        quiet: when it may not come.
        longest_body: in characters; what is more is cut.
    """

    name: str
    address: Literal["email", "phone", "push_token"]
    valid: re.Pattern[str]
    before: timedelta
    latest: timedelta
    title: str
    body: str
    quiet: QuietHours | None = None
    longest_body: int = 2000

    @property
    def earliest(self) -> timedelta:
        """The longest time before an appointment at which it may be sent."""
        return self.before + (self.quiet.longest + EVENING if self.quiet else timedelta(0))

    def message(self, name: str, title: str, starts_at: datetime, zone: ZoneInfo) -> tuple[str, str]:
        """Title and body, with the time as the customer's clock shows it."""
        local = starts_at.astimezone(zone)
        when = f"{local:%A} {local.day} {local:%B}, {local:%H:%M} ({local:%Z})"
        values = {"name": _shown(name), "title": _shown(title), "when": when}
        return self.title.format(**values), self.body.format(**values)[: self.longest_body]


NIGHT = QuietHours(time(21), time(8))

PUSH = ReminderType(
    name="push",
    address="push_token",
    valid=_TOKEN,
    before=timedelta(hours=1),
    latest=timedelta(minutes=5),
    title="{title}",
    body="{when}",
    quiet=NIGHT,
    longest_body=120,
)
SMS = ReminderType(
    name="sms",
    address="phone",
    valid=E164,
    before=timedelta(hours=2),
    latest=timedelta(minutes=15),
    title="",
    body="Reminder: {title}, {when}. Call us if you cannot come.",
    quiet=NIGHT,
    longest_body=160,
)
WHATSAPP = ReminderType(
    name="whatsapp",
    address="phone",
    valid=E164,
    before=timedelta(hours=4),
    latest=timedelta(minutes=30),
    title="Your appointment",
    body="Hello {name}, we look forward to seeing you: {title}, {when}.",
    quiet=NIGHT,
    longest_body=1000,
)
EMAIL = ReminderType(
    name="email",
    address="email",
    valid=_EMAIL,
    before=timedelta(hours=24),
    latest=timedelta(hours=3),
    title="Reminder: {title}",
    body=(
        "Dear {name},\n\nthis is to remind you of your appointment:\n\n{title}\n{when}\n\n"
        "If you cannot come, please tell us in time, so that somebody else can have it.\n"
    ),
)

REMINDER_TYPES: dict[str, ReminderType] = {each.name: each for each in (PUSH, SMS, WHATSAPP, EMAIL)}
"""By name, the most urgent first, which is the order in which they are sent."""


def types_named(names: Sequence[str]) -> list[ReminderType]:
    """The types of these names, each once. Raises `ConfigError` for one that there is not."""
    for name in names:
        if name not in REMINDER_TYPES:
            hint = did_you_mean(str(name), REMINDER_TYPES, f"there are {', '.join(REMINDER_TYPES)}")
            raise ConfigError(f"no reminder type is called {name!r}: {hint}")
    return [each for each in REMINDER_TYPES.values() if each.name in names]


def planned(rule: ReminderType, starts_at: datetime, zone: ZoneInfo) -> datetime:
    due = (starts_at - rule.before).astimezone(timezone.utc)
    if rule.quiet is None or not rule.quiet.covers(due, zone):
        return due
    morning = rule.quiet.end_after(due, zone)
    return morning if morning <= starts_at - rule.latest else rule.quiet.begin_before(due, zone) - EVENING


@dataclass(frozen=True)
class Decision:
    """What to do now; ``why`` it is not to be sent."""

    action: Literal["send", "wait", "skip"]
    why: str = ""


def decide(rule: ReminderType, starts_at: datetime, zone_name: str, address: str, now: datetime) -> Decision:
    """Whether the reminder is sent now, later, or not at all."""
    if now >= starts_at:
        return Decision("skip", "the appointment had begun")
    zone = zone_called(zone_name)
    if zone is None:
        return Decision("skip", f"there is no time zone {zone_name!r}")
    if not rule.valid.fullmatch(address):
        return Decision("skip", f"{rule.address} cannot be used as it is written")
    if now > starts_at - rule.latest:
        return Decision("skip", f"too late: less than {_words(rule.latest)} before the appointment")
    if now < planned(rule, starts_at, zone) or (rule.quiet is not None and rule.quiet.covers(now, zone)):
        return Decision("wait")
    return Decision("send")


def check_zones() -> None:
    """Raise `ConfigError` where no time zone is known at all, which would skip every reminder."""
    if zone_called("Etc/UTC") is None:
        raise ConfigError("this machine knows no time zones: pip install tzdata, or install your system's package")


def zone_called(name: str) -> ZoneInfo | None:
    """The time zone of that name; None: there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no name of a zone; the name of a directory of them
        return None


def _in_utc(day: date, at: time, zone: ZoneInfo, fold: int = 0) -> datetime:
    """The moment in UTC. A local time that clocks skip becomes the one that they show instead."""
    return datetime.combine(day, at.replace(fold=fold), tzinfo=zone).astimezone(timezone.utc)


def _shown(text: str) -> str:
    """On one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def _words(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes // 60} hours" if minutes % 60 == 0 and minutes > 60 else f"{minutes} minutes"
