"""Reminders: when each is due in every zone; what providers answer; and real workers that send to a real receiver."""

from __future__ import annotations

import logging
import smtplib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timedelta, timezone
from functools import partial
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Repeat
from rq.job import Job, JobStatus
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from jobs import reminder_claims as claims
from jobs import reminders
from jobs.database import session_factory
from jobs.reminder_sending import (
    DOWN_IN_A_ROW,
    REFUSED_IN_A_ROW,
    SENT,
    Answer,
    answer_of,
    channels,
    trouble_in,
)
from jobs.reminder_types import (
    EMAIL,
    PUSH,
    REMINDER_TYPES,
    SMS,
    WHATSAPP,
    QuietHours,
    ReminderType,
    decide,
    planned,
    types_named,
    zone_called,
)
from jobs.reminders import SendAppointmentReminderJob
from jobs.sources import shared_sessions
from jobs.tables import Appointment, Reminder, utc_now
from rqmem.errors import ConfigError
from rqmem.store import execution_reader
from rqmem.testing import wait_until
from seeds import appointments as seeds
from tests.conftest import StartWorker
from tests.receiver import Receiver
from tests.reference_app.campaign_jobs import counted
from tests.reference_app.held_jobs import HastyReminders

SECRET = "hunter2"
sqlite_alone = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
"""For what has nothing to do with the database."""

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
ZONES = sorted(name for name in available_timezones() if "/" in name)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


# When


@pytest.mark.parametrize(
    ("rule", "zone", "begins", "comes"),
    [
        # By day: so many hours before.
        (SMS, BERLIN, "2027-01-14T14:00", "2027-01-14T12:00"),
        (EMAIL, BERLIN, "2027-01-14T14:00", "2027-01-13T14:00"),
        (EMAIL, BERLIN, "2027-01-14T02:00", "2027-01-13T02:00"),  # e-mail wakes nobody
        # 9:30 there: two hours before it is quiet; 8:00 is early enough.
        (SMS, BERLIN, "2027-01-14T08:30", "2027-01-14T07:00"),
        # 8:10 there: 8:00 is too late for an SMS, so it comes at 20:00 the evening before.
        (SMS, BERLIN, "2027-01-14T07:10", "2027-01-13T19:00"),
        # 0:30 there: 22:30 is quiet already.
        (SMS, BERLIN, "2027-01-13T23:30", "2027-01-13T19:00"),
        # The night in which clocks are set forward: 8:00 and 20:00 are one hour earlier in UTC from then on.
        (SMS, BERLIN, "2027-03-28T07:30", "2027-03-28T06:00"),
        (SMS, BERLIN, "2027-03-28T06:10", "2027-03-27T19:00"),
        (WHATSAPP, BERLIN, "2027-03-28T06:35", "2027-03-28T06:00"),
        # And the one in which they are set back.
        (SMS, BERLIN, "2027-10-31T08:30", "2027-10-31T07:00"),
        (SMS, BERLIN, "2027-10-31T07:10", "2027-10-30T18:00"),
        (SMS, NEW_YORK, "2027-11-07T14:30", "2027-11-07T13:00"),
        # 24 hours that pass, though the clock shows another time then.
        (EMAIL, BERLIN, "2027-03-28T12:00", "2027-03-27T12:00"),
    ],
)
def test_when_a_reminder_comes(rule: ReminderType, zone: ZoneInfo, begins: str, comes: str) -> None:
    assert planned(rule, utc(begins), zone) == utc(comes)


@given(
    zone_name=st.sampled_from(ZONES),
    begins=st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)),
    quiet=st.builds(QuietHours, st.times(), st.times()).filter(
        # With less than two hours that are not quiet there is no evening to come in.
        lambda quiet: quiet.longest < timedelta(hours=23)
    ),
    rule=st.sampled_from(list(REMINDER_TYPES.values())),
)
def test_no_reminder_comes_in_quiet_hours_or_too_late(
    zone_name: str, begins: datetime, quiet: QuietHours, rule: ReminderType
) -> None:
    zone, starts_at = ZoneInfo(zone_name), begins.replace(tzinfo=timezone.utc)
    quieter = ReminderType(**{**vars(rule), "quiet": quiet})
    at = planned(quieter, starts_at, zone)
    assert not quiet.covers(at, zone)
    assert starts_at - quieter.earliest <= at <= starts_at - quieter.latest
    assert decide(quieter, starts_at, zone_name, _address(rule), at).action == "send"
    assert decide(quieter, starts_at, zone_name, _address(rule), at - timedelta(seconds=1)).action == "wait"


@given(zone_name=st.sampled_from(ZONES), night=st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)))
def test_quiet_hours_end_and_begin_around_the_night(zone_name: str, night: datetime) -> None:
    zone, now = ZoneInfo(zone_name), night.replace(tzinfo=timezone.utc)
    quiet = QuietHours(time(21), time(8))
    if not quiet.covers(now, zone):
        return
    assert quiet.begin_before(now, zone) <= now < quiet.end_after(now, zone)
    assert quiet.end_after(now, zone) - quiet.begin_before(now, zone) <= quiet.longest
    assert not quiet.covers(quiet.end_after(now, zone), zone)


def test_an_hour_that_comes_twice_and_one_that_never_comes() -> None:
    quiet = QuietHours(time(23), time(2, 30))
    # 2:15 for the second time: it is quiet until the second 2:30.
    assert quiet.end_after(utc("2027-10-31T01:15"), BERLIN) == utc("2027-10-31T01:30")
    # There is no 2:30 that night; clocks show 3:30 when it would have been.
    assert quiet.end_after(utc("2027-03-28T00:30"), BERLIN) == utc("2027-03-28T01:30")


@pytest.mark.parametrize(
    ("begins", "zone_name", "address", "now", "action", "why"),
    [
        ("2027-01-14T14:00", "Europe/Berlin", "+491511", "2027-01-14T14:00", "skip", "the appointment had begun"),
        ("2027-01-14T14:00", "Nowhere/Else", "+4915112345", "2027-01-14T15:00", "skip", "the appointment had begun"),
        ("2027-01-14T14:00", "Nowhere/Else", "+4915112345", "2027-01-14T13:00", "skip", "no time zone 'Nowhere/Else'"),
        ("2027-01-14T14:00", "Europe/Berlin", "0151 12345", "2027-01-14T13:00", "skip", "phone cannot be used"),
        ("2027-01-14T14:00", "Europe/Berlin", "+4915112345", "2027-01-14T13:46", "skip", "less than 15 minutes"),
        ("2027-01-14T14:00", "Europe/Berlin", "+4915112345", "2027-01-14T13:45", "send", ""),
        ("2027-01-14T14:00", "Europe/Berlin", "+4915112345", "2027-01-14T11:59", "wait", ""),
        # Booked, or found by a run that is late, in the night: not now, though it is overdue.
        ("2027-01-14T07:10", "Europe/Berlin", "+4915112345", "2027-01-14T03:00", "wait", ""),
    ],
)
def test_what_is_decided(begins: str, zone_name: str, address: str, now: str, action: str, why: str) -> None:
    decision = decide(SMS, utc(begins), zone_name, address, utc(now))
    assert decision.action == action
    assert why in decision.why


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/", "../../etc/passwd", "/etc/passwd", "Mars\x00", "x" * 5000, "Zür/ich"]
)
def test_what_is_no_time_zone(name: str) -> None:
    assert zone_called(name) is None


# What


def test_a_message_tells_the_time_on_the_customers_clock() -> None:
    title, body = EMAIL.message("Zoë {when}\nBcc: x", "Eye test", utc("2027-07-04T22:30"), ZoneInfo("Asia/Tokyo"))
    assert title == "Reminder: Eye test"
    assert "Dear Zoë {when} Bcc: x," in body
    assert "Monday 5 July, 07:30 (JST)" in body


@given(name=st.text(max_size=300), title=st.text(max_size=300), zone_name=st.sampled_from(ZONES))
def test_an_sms_is_one_sms(name: str, title: str, zone_name: str) -> None:
    _, body = SMS.message(name, title, utc("2027-09-22T12:00"), ZoneInfo(zone_name))
    assert len(body) <= 160
    assert body.endswith("Call us if you cannot come.")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["smss"], "no reminder type is called 'smss': did you mean sms?"),
        (["sms", "fax"], "no reminder type is called 'fax': there are push, sms, whatsapp, email"),
    ],
)
def test_an_unknown_type(names: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace("?", r"\?")):
        types_named(names)


def test_types_are_sent_in_the_order_of_urgency_each_once() -> None:
    assert types_named(["email", "push", "email"]) == [PUSH, EMAIL]


# What providers answer


def _smtp(error: Exception) -> str:
    return f"Socket Exception: {error}"


def _before_mail(error: Exception) -> str:
    return f'Connection error while submitting email to "h"\nSocket Exception: {error}'


HTTP = "Failed to send JSON POST notification: words, error={}."
LIBRARY = "A Connection error occurred sending JSON notification to h.\nSocket Exception: HTTPConnectionPool({})"


@pytest.mark.parametrize(
    ("heard", "status", "trouble"),
    [
        (HTTP.format(400), "refused", ""),
        (HTTP.format(403), "refused", ""),
        (HTTP.format(401), "postponed", "key"),
        (HTTP.format(429), "postponed", "down"),
        (HTTP.format(503), "postponed", "down"),
        (HTTP.format(500), "unknown", "down"),
        (HTTP.format(504), "unknown", "down"),
        (LIBRARY.format("Caused by NewConnectionError('[Errno 111] Connection refused')"), "postponed", "down"),
        (LIBRARY.format("Caused by ConnectTimeoutError(...)"), "postponed", "down"),
        (LIBRARY.format("Read timed out. (read timeout=4.0)"), "unknown", "down"),
        (LIBRARY.format("'Connection aborted.', RemoteDisconnected('Remote end closed')"), "unknown", "down"),
        (_before_mail(smtplib.SMTPAuthenticationError(535, b"5.7.8 no")), "postponed", "key"),
        (_smtp(smtplib.SMTPRecipientsRefused({"a@b": (550, b"5.1.1 nobody")})), "refused", ""),
        (_smtp(smtplib.SMTPDataError(554, b"spam")), "refused", ""),
        # Not of the customer's address, but of one in bcc: sent again it would come twice.
        ("SMTP recipient office@h was refused: 450 b'later'", "sent", ""),
        ("SMTP recipient office@h was refused: 450 b'later'\nSMTP recipient a@b was refused: 550 b'no'", "refused", ""),
        (_before_mail(smtplib.SMTPConnectError(421, b"busy")), "postponed", "down"),
        (_before_mail(TimeoutError("timed out")), "postponed", "down"),
        (_smtp(TimeoutError("timed out")), "unknown", "down"),
        (_smtp(smtplib.SMTPServerDisconnected("Connection unexpectedly closed")), "unknown", "down"),
        (_before_mail(ConnectionRefusedError(111, "Connection refused")), "postponed", "down"),
        ("There are no Email recipients to notify", "refused", ""),
        ("", "unknown", "down"),
    ],
)
def test_what_an_answer_means(heard: str, status: str, trouble: str) -> None:
    answer = answer_of(heard, "a@b")
    assert (answer.status, answer.trouble) == (status, trouble)
    assert answer.why or answer == SENT


def test_what_answers_say_of_a_provider() -> None:
    refused, down, key = answer_of(HTTP.format(404)), answer_of(HTTP.format(500)), answer_of(HTTP.format(401))
    assert trouble_in([key]) == "key"
    assert trouble_in([down] * (DOWN_IN_A_ROW - 1)) == ""
    assert trouble_in([SENT] + [down] * DOWN_IN_A_ROW) == "down"
    assert trouble_in([down, SENT, down, down]) == ""
    assert trouble_in([refused] * (REFUSED_IN_A_ROW - 1)) == ""
    assert trouble_in([refused] * REFUSED_IN_A_ROW) == "key"
    assert trouble_in([refused] * (REFUSED_IN_A_ROW - 1) + [SENT]) == ""
    assert trouble_in([refused] * REFUSED_IN_A_ROW, takes_others=True) == ""
    assert trouble_in([refused] * REFUSED_IN_A_ROW + [key], takes_others=True) == "key"


@pytest.mark.parametrize(
    ("types", "environ", "line"),
    [
        (None, {}, "none of REMINDER_PUSH_URL, REMINDER_SMS_URL, REMINDER_WHATSAPP_URL, REMINDER_EMAIL_URL is set"),
        ([SMS], {"REMINDER_EMAIL_URL": "json://h/{to}"}, "REMINDER_SMS_URL is not set"),
        (None, {"REMINDER_SMS_URL": "json://user:hunter2@h"}, "REMINDER_SMS_URL has no {to} in it"),
        (None, {"REMINDER_SMS_URL": "jsn://hunter2@h/{to}"}, "no service jsn://; did you mean json?"),
        (None, {"REMINDER_SMS_URL": "hunter2 {to}"}, "it must begin with a service"),
        (None, {"REMINDER_SMS_URL": "twilio://hunter2/{to}"}, "what follows twilio:// is not what that service needs"),
        (None, {"REMINDER_EMAIL_URL": "mailto://u:hunter2@h.de/{to}/a@h.de"}, "has other recipients than {to}"),
        (None, {"REMINDER_EMAIL_URL": "mailto://u:hunter2@h.de/?to={to}&to=a@h.de"}, "has other recipients than {to}"),
    ],
)
def test_urls_that_cannot_be_used(types: list[ReminderType] | None, environ: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as failure, channels(types, environ):
        pass
    assert line in str(failure.value)
    assert SECRET not in str(failure.value)


def test_loggers_are_afterwards_what_they_were(receiver: Receiver) -> None:
    names = ("apprise", "urllib3", "requests")
    before = [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names]
    with channels([SMS], {"REMINDER_SMS_URL": url(receiver, "sms")}) as [channel]:
        assert not logging.getLogger("apprise").propagate
        assert channel.send("+14155550100", "", "Hello") == SENT
    assert [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names] == before
    assert receiver.taken[0]["path"] == "/sms/+14155550100"


def test_what_was_not_taken_is_tried_again_and_what_may_have_been_is_not(receiver: Receiver) -> None:
    with channels([SMS], {"REMINDER_SMS_URL": url(receiver, "sms")}) as [channel]:
        receiver.answers = [503, 429]
        assert channel.send("+14155550100", "", "Hello", pauses=(0, 0)) == SENT
        receiver.answers = [503, 503]
        assert channel.send("+14155550100", "", "Hello", pauses=(0,)).status == "postponed"
        receiver.messages.clear()
        receiver.answers = [500]
        assert channel.send("+14155550100", "", "Hello", pauses=(0, 0)).status == "unknown"
        assert len(receiver.messages) == 1
        receiver.close()
        assert channel.send("+14155550100", "", "Hello", pauses=()).why == "it could not be reached"


@pytest.mark.parametrize("address", ["o'neil@example.com", "sir:neil@example.com", "neil@example.xn--p1ai"])
def test_a_mail_goes_to_that_address_or_to_nobody(address: str) -> None:
    """Apprise would send it to neil@example.com, and the last to neil@example.xn."""
    environ = {"REMINDER_EMAIL_URL": "mailto://127.0.0.1:9/?to={to}&from=a@h.de&bcc=b@h.de&retry=1"}
    with channels([EMAIL], environ) as [channel]:
        assert channel.send("neil@example.com", "", "Hello", pauses=()).why == "it could not be reached"
        assert channel.send(address, "", "Hello", pauses=()).status == "refused"


def test_a_mail_server_that_hangs_up_before_the_mail_has_taken_none() -> None:
    """Each run took a few for sent, perhaps, and lost them."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        environ = {"REMINDER_EMAIL_URL": f"mailto://127.0.0.1:{server.getsockname()[1]}/?to={{to}}&from=a@h.de"}
        with channels([EMAIL], environ) as [channel]:
            answer = channel.send("neil@example.com", "", "Hello", pauses=())
        thread.join()
    assert answer == Answer("postponed", "it could not be reached", "down")


def test_the_time_limit_of_the_job_is_no_answer(receiver: Receiver) -> None:
    """It was taken for one, and the job went on without a limit."""
    with channels([SMS], {"REMINDER_SMS_URL": url(receiver, "sms")}) as [channel]:
        receiver.held.clear()
        with pytest.raises(JobTimeoutException), UnixSignalDeathPenalty(1, JobTimeoutException):
            channel.send("+14155550100", "", "Hello")


# In the database


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def sessions(database: Engine) -> sessionmaker[Session]:
    return session_factory(database)


def url(receiver: Receiver, path: str) -> str:
    return f"json://user:{SECRET}@127.0.0.1:{receiver.port}/{path}/{{to}}?+X-Token=token-{SECRET}"


def zone_where_it_is(hour: int) -> str:
    """A time zone in which it is that hour now; those of the tz database count westwards."""
    ahead = (hour - utc_now().hour + 12) % 24 - 12
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


def booked(minutes: float = 62, **columns: object) -> dict[str, object]:
    """An appointment so many minutes from now, for a customer where it is noon."""
    return {
        "title": "Haircut", "name": "Zoë", "email": "", "phone": "", "push_token": "", "status": "booked",
        "time_zone": zone_where_it_is(12), "starts_at": utc_now() + timedelta(minutes=minutes), **columns,
    }  # fmt: skip


def book(database: Engine, *rows: dict[str, object]) -> list[Appointment]:
    with database.begin() as connection:
        connection.execute(insert(Appointment), list(rows))
    with session_factory(database)() as session:
        return list(session.scalars(select(Appointment).order_by(Appointment.id)))


def outcomes(database: Engine) -> dict[tuple[int, str], tuple[str, str | None]]:
    with session_factory(database)() as session:
        return {
            (each.appointment_id, each.type): (each.status, each.reason) for each in session.scalars(select(Reminder))
        }


def _address(rule: ReminderType) -> str:
    return {"email": "a@b.example", "phone": "+14155550100", "push_token": "device-1"}[rule.address]


def test_a_reminder_is_claimed_once(database: Engine, sessions: sessionmaker[Session]) -> None:
    [appointment] = book(database, booked(phone="+14155550100"))
    now = utc_now()
    claimed = [claims.claim(sessions, SMS, [appointment], run, now) for run in ("a", "b", "a")]
    assert claimed == [[appointment], [], []]
    assert claims.claim(sessions, PUSH, [appointment], "b", now) == [appointment]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "cancelled"}, {"starts_at": utc_now() + timedelta(days=9)}, {"phone": "+14155550101"},
        {"time_zone": "Europe/Berlin"},
    ],
)  # fmt: skip
def test_what_changed_since_it_was_read_is_not_claimed(
    database: Engine, sessions: sessionmaker[Session], change: dict[str, object]
) -> None:
    [appointment] = book(database, booked(phone="+14155550100"))
    with database.begin() as connection:
        connection.execute(update(Appointment).values(change))
    assert claims.claim(sessions, SMS, [appointment], "a", utc_now()) == []
    assert outcomes(database) == {}


def test_what_was_not_sent_may_be_claimed_again_and_what_was_may_not(
    database: Engine, sessions: sessionmaker[Session]
) -> None:
    appointments = book(database, *(booked(phone=f"+1415555010{n}") for n in range(4)))
    now = utc_now()
    answers = (SENT, Answer("refused", "x"), Answer("unknown", "x"), Answer("postponed", "x"))
    assert claims.claim(sessions, SMS, appointments, "a", now) == appointments
    claims.settle(sessions, SMS, list(zip(appointments, answers, strict=True)), "a", now)
    assert claims.claim(sessions, SMS, appointments, "b", now) == [appointments[3]]
    assert {each.id for each, _ in claims.due(sessions, SMS, now).items_after(None)} == set()


def test_a_moved_appointment_is_reminded_of_anew(database: Engine, sessions: sessionmaker[Session]) -> None:
    [appointment] = book(database, booked(phone="+14155550100"))
    claims.claim(sessions, SMS, [appointment], "a", utc_now())
    claims.settle(sessions, SMS, [(appointment, SENT)], "a", utc_now())
    with database.begin() as connection:
        connection.execute(update(Appointment).values(starts_at=appointment.starts_at + timedelta(minutes=20)))
    [(moved, _)] = claims.due(sessions, SMS, utc_now()).items_after(None)
    assert claims.claim(sessions, SMS, [moved], "b", utc_now()) == [moved]


def test_moved_back_it_is_reminded_of_anew_and_once(database: Engine, sessions: sessionmaker[Session]) -> None:
    """The other time is the last that the customer was told. Of many runs at once one tells."""
    [appointment, refused] = book(database, booked(phone="+14155550100"), booked(phone="+14155550101"))
    claims.claim(sessions, SMS, [refused], "a", utc_now())
    claims.settle(sessions, SMS, [(refused, Answer("refused", "x"))], "a", utc_now())
    found = []
    for minutes in (0, 20, 0, 0):
        starts_at = appointment.starts_at + timedelta(minutes=minutes)
        with database.begin() as connection:
            connection.execute(update(Appointment).where(Appointment.id == appointment.id).values(starts_at=starts_at))
        due = [each for each, _ in claims.due(sessions, SMS, utc_now()).items_after(None)]
        found.append([each.id for each in due])
        for each in due:
            with ThreadPoolExecutor(6) as threads:
                claim = partial(claims.claim, sessions, SMS, [each], now=utc_now())
                assert sum(threads.map(lambda run, claim=claim: len(claim(run=run)), "abcdef")) == 1
    assert found == [[appointment.id]] * 3 + [[]]


def test_claims_that_nobody_confirmed_are_reported_and_the_late_answer_counts(
    database: Engine, sessions: sessionmaker[Session], caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = book(database, *(booked(phone=f"+1415555010{n}") for n in range(3)))
    now = utc_now()
    claims.claim(sessions, SMS, [first], "this run before", now)
    claims.claim(sessions, SMS, [second], "another", now - claims.CLAIM_AGE - timedelta(seconds=1))
    claims.claim(sessions, SMS, [third], "another", now - claims.CLAIM_AGE + timedelta(seconds=1))
    claims.report_unconfirmed(sessions, "this run before", now, logging.getLogger("jobs.reminders"))
    assert {key: status for key, (status, _) in outcomes(database).items()} == {
        (first.id, "sms"): "unknown", (second.id, "sms"): "unknown", (third.id, "sms"): "claimed",
    }  # fmt: skip
    assert len(caplog.messages) == 2
    assert f"the sms reminder of appointment {first.id} may have been sent or not" in caplog.messages[0]
    claims.settle(sessions, SMS, [(second, SENT)], "another", now)  # it lived, and was slow
    assert outcomes(database)[second.id, "sms"] == ("sent", None)


def test_a_skip_is_written_once_and_what_is_mended_is_sent(database: Engine, sessions: sessionmaker[Session]) -> None:
    [appointment] = book(database, booked(phone="+14155550100", time_zone="Mars/Base"))
    for run in ("a", "b"):
        [(found, _)] = claims.due(sessions, SMS, utc_now()).items_after(None)
        claims.write_skipped(sessions, SMS, [(found, "there is no time zone 'Mars/Base'")], run, utc_now())
    assert claims.count(sessions, "a") == {"sms": {"skipped": 1}}
    assert claims.count(sessions, "b") == {}
    assert claims.claim(sessions, SMS, [appointment], "c", utc_now()) == [appointment]


def test_many_runs_at_once_claim_each_of_many_once(database: Engine, sessions: sessionmaker[Session]) -> None:
    appointments = book(database, *(booked(62 + n / 100, phone=f"+1415555{n:04}") for n in range(200)))

    def claim_all(run: str) -> list[int]:
        pieces = [appointments[begin : begin + claims.AT_ONCE] for begin in range(0, 200, claims.AT_ONCE)]
        return [each.id for piece in pieces for each in claims.claim(sessions, SMS, piece, run, utc_now())]

    with ThreadPoolExecutor(6) as threads:
        claimed = [id for ids in threads.map(claim_all, "abcdef") for id in ids]
    assert sorted(claimed) == [each.id for each in appointments]


@pytest.mark.usefixtures("called_here")
@pytest.mark.parametrize("doubted", [False, True])
def test_a_run_that_fails_between_messages_gives_back_what_it_had_not_sent(
    database: Engine, sessions: sessionmaker[Session], receiver: Receiver, doubted: bool
) -> None:
    """One message may have been sent or not, the third. It stays claimed, and the next execution reports it."""
    appointments = book(database, *(booked(62 + n / 100, phone=f"+1415555{n:04}") for n in range(5)))
    job = SendAppointmentReminderJob()
    job.sessions, job.run_id, job.answers, job.doubted = sessions, "a", reminders.deque(maxlen=20), doubted
    with channels([SMS], {"REMINDER_SMS_URL": url(receiver, "sms")}) as [job.channel]:
        send = job.channel.send

        def fail_at_the_third(address: str, *rest: object) -> Answer:
            if address == appointments[2].phone:
                raise MemoryError
            return send(address, *rest)

        job.channel.send = fail_at_the_third  # type: ignore[method-assign]
        with pytest.raises(MemoryError):
            job.remind(appointments)
    given_back = "doubted" if doubted else "postponed"
    found = outcomes(database)
    left = [found[each.id, "sms"][0] for each in appointments]
    assert left == ["sent", "sent", "claimed", given_back, given_back]
    assert len(receiver.taken) == 2
    assert claims.claim(sessions, SMS, appointments, "b", utc_now()) == appointments[3:]


@pytest.mark.usefixtures("called_here")
def test_writes_grow_with_a_tenth_of_the_messages(
    database: Engine, sessions: sessionmaker[Session], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten messages have two transactions, which is what makes each exactly one; nothing is read for any."""
    appointments = book(database, *(booked(phone=f"+1415555{n:04}") for n in range(30)))
    job = SendAppointmentReminderJob()
    job.sessions, job.run_id, job.answers = sessions, "a", reminders.deque(maxlen=20)
    with channels([SMS], {"REMINDER_SMS_URL": url(receiver, "sms")}) as [job.channel]:
        for size in (10, 20):
            with counted(database) as statements:
                job.remind(appointments[:size])
            appointments = appointments[size:]
            assert Counter(each.split()[0] for each in statements) == {"INSERT": size / 10, "UPDATE": size / 10}
    assert len(receiver.taken) == 30


@pytest.mark.usefixtures("called_here")
def test_a_run_reads_the_same_however_much_is_due(
    database: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker, in this process: all its queries, the pages of appointments among them."""
    monkeypatch.setenv("REMINDER_SMS_URL", url(receiver, "sms"))
    engine = shared_sessions().kw["bind"]
    reads: list[list[str]] = []
    for size in (20, 60):
        book(database, *(booked(62, phone=f"+1415{size}{n:05}") for n in range(size)))
        with counted(engine) as statements:
            assert SendAppointmentReminderJob.run(types="sms")["sms"] == {"sent": size}
        reads.append([text for text in statements if text.startswith("SELECT")])
    assert len(reads[0]) == len(reads[1]) <= 5
    engine.dispose()


# On workers


@pytest.fixture
def environ(receiver: Receiver) -> dict[str, str]:
    """What a worker needs, besides DATABASE_URL."""
    names = ("push", "sms", "whatsapp", "email")
    return {
        **{f"REMINDER_{name.upper()}_URL": url(receiver, name) for name in names}, "RQMEM_HEARTBEAT": "0.5",
    }  # fmt: skip


def received(receiver: Receiver) -> Counter[str]:
    """How often each address was sent to, by type: ``/sms/+14155550100``."""
    return Counter(each["path"] for each in receiver.messages)


def run(start_worker: StartWorker, *options: str, **environ: str) -> str:
    return start_worker("reminders", "--burst", *options, **environ).finish()


def test_reminders_of_all_types_at_their_time(
    connection: Redis, database: Engine, receiver: Receiver, environ: dict[str, str], start_worker: StartWorker
) -> None:
    noon, night = zone_where_it_is(12), zone_where_it_is(2)
    everything = {"email": "z@example.com", "phone": "+14155550100", "push_token": "device-1"}
    ids = [
        each.id
        for each in book(
            database,
            booked(55, **everything),  # too late for an e-mail
            booked(110, **{**everything, "phone": "+14155550101"}),
            booked(60 * 23, **{**everything, "email": "early@example.com"}),  # too early for all but e-mail
            booked(55, phone="+14155550103", time_zone=night),
            booked(55, phone="+14155550104", time_zone="Mars/Base"),
            booked(55, phone="0151-FLOWERS"),
            booked(-30, **{**everything, "phone": "+14155550106"}),  # past
            booked(55, phone="+14155550107", status="cancelled"),
            booked(60 * 24 * 9, **everything),
        )
    ]
    job = SendAppointmentReminderJob.enqueue(connection=connection)
    log = run(start_worker, "--memory", "512", "--log-level", "debug", **environ)
    assert received(receiver) == {
        "/push/device-1": 1,
        "/sms/+14155550100": 1, "/sms/+14155550101": 1,
        "/whatsapp/+14155550100": 1, "/whatsapp/+14155550101": 1,
        "/email/early@example.com": 1,
    }, log  # fmt: skip
    assert job.return_value() == {
        "email": {"sent": 1, "skipped": 3},
        "push": {"sent": 1, "skipped": 1},
        "sms": {"sent": 2, "skipped": 3},
        "whatsapp": {"sent": 2, "skipped": 3},
    }
    found = outcomes(database)
    assert found[ids[0], "push"] == found[ids[1], "sms"] == found[ids[2], "email"] == ("sent", None)
    assert found[ids[0], "email"] == ("skipped", "too late: less than 3 hours before the appointment")
    assert found[ids[4], "sms"] == ("skipped", "there is no time zone 'Mars/Base'")
    assert found[ids[5], "whatsapp"] == ("skipped", "phone cannot be used as it is written")
    assert found[ids[6], "email"] == ("skipped", "the appointment had begun")
    assert not {id for id, _ in found} & {ids[3], ids[7], ids[8]}
    local = utc_now().astimezone(ZoneInfo(noon))
    assert f"{local:%A}" in receiver.taken[0]["message"] or local.hour == 23
    for name in REMINDER_TYPES:
        assert f"at reminders_{name}\n" in log
    assert SECRET not in log
    assert "0100" not in log  # no addresses either
    assert execution_reader.run(connection, job.id).peak_mb < 128


def test_cut_off_while_sending_nothing_is_sent_twice(
    connection: Redis, database: Engine, receiver: Receiver, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """Those claimed together with the one on its way are reported as unknown; a second kill comes anywhere."""
    appointments = book(database, *(booked(62 + n / 100, phone=f"+1415555{n:04}") for n in range(60)))
    receiver.held.clear()
    job = SendAppointmentReminderJob.enqueue(types="sms", connection=connection)
    worker = start_worker("reminders", **environ)
    wait_until(lambda: len(receiver.messages) == 1)
    worker.kill()
    receiver.held.set()
    worker = start_worker("reminders", **environ)
    wait_until(lambda: len(receiver.messages) >= 20)
    worker.kill()
    last = start_worker("reminders", **environ)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    last.process.terminate()
    log = last.finish()
    found = outcomes(database)
    assert found[appointments[0].id, "sms"] == ("unknown", "the run was cut off while it was sent")
    unknown = [id for (id, _), (status, _) in found.items() if status == "unknown"]
    assert claims.AT_ONCE <= len(unknown) <= 2 * claims.AT_ONCE
    assert len(found) == 60
    sent = {f"/sms/{each.phone}" for each in appointments if found[each.id, "sms"][0] == "sent"}
    maybe = {f"/sms/{each.phone}" for each in appointments if each.id in unknown}
    times = received(receiver)
    assert len(sent) + len(maybe) == 60
    assert sent <= times.keys() <= sent | maybe
    assert set(times.values()) == {1}, log
    assert job.return_value() == {"sms": {"sent": 60 - len(unknown), "unknown": len(unknown)}}
    assert execution_reader.run(connection, job.id).resumes == 2


def test_run_twice_and_by_two_workers_at_once_each_is_sent_once(
    connection: Redis, database: Engine, receiver: Receiver, environ: dict[str, str], start_worker: StartWorker
) -> None:
    rows = seeds.appointments(7, 80)
    soon = [booked(62 + n / 100, email=row["email"], phone=row["phone"]) for n, row in enumerate(rows)]
    book(database, *soon)
    jobs = [SendAppointmentReminderJob.enqueue(types=["sms", "whatsapp"], connection=connection) for _ in range(3)]
    workers = [start_worker("reminders", "--burst", **environ) for _ in range(2)]
    logs = [worker.finish() for worker in workers]
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 3, logs
    wanted = {
        f"/{name}/{row['phone']}" for row in soon for name in ("sms", "whatsapp") if SMS.valid.fullmatch(row["phone"])
    }
    assert received(receiver) == dict.fromkeys(wanted, 1)
    together = Counter[str]()
    for job in jobs:
        for figures in job.return_value().values():
            together.update(figures)
    assert together["sent"] == len(wanted)
    assert set(together) <= {"sent", "skipped", "due"}
    assert together["due"] == 0
    assert max(execution_reader.run(connection, job.id).peak_mb for job in jobs) < 128


@sqlite_alone
def test_a_repetition_counts_what_it_has_done_itself(
    connection: Redis, database: Engine, environ: dict[str, str], start_worker: StartWorker
) -> None:
    book(database, booked(phone="+14155550100"))
    job = SendAppointmentReminderJob.enqueue(types="sms", repeat=Repeat(times=1), connection=connection)
    log = run(start_worker, **environ)
    assert [each.return_value for each in job.results()] == [{"sms": {"due": 0}}, {"sms": {"sent": 1}}], log


@sqlite_alone
def test_a_provider_that_is_down_stops_neither_the_others_nor_a_later_run(
    connection: Redis, database: Engine, receiver: Receiver, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """Down for three messages, each tried three times, which ends the run; then for a moment only."""
    other = Receiver()
    other.answers = [503] * (DOWN_IN_A_ROW * 3) + [503, 429]
    book(database, *(booked(62 + n / 100, phone=f"+1415555{n:04}") for n in range(20)))
    job = HastyReminders.enqueue(connection=connection)  # RQ's Retry runs it again
    log = run(start_worker, **{**environ, "REMINDER_SMS_URL": url(other, "sms")})
    other.close()
    line = "sms: the provider of REMINDER_SMS_URL takes no messages (it answered HTTP 503); a later run sends them"
    assert log.count(line) == 1, log
    assert "Traceback" not in log
    assert SECRET not in log
    assert received(receiver) == {f"/whatsapp/+1415555{n:04}": 1 for n in range(20)}
    assert Counter(each["path"] for each in other.taken) == {f"/sms/+1415555{n:04}": 1 for n in range(20)}
    assert job.return_value() == {
        "push": {"due": 0}, "sms": {"sent": 20}, "whatsapp": {"sent": 20}, "email": {"due": 0},
    }  # fmt: skip


@sqlite_alone
def test_a_key_that_is_refused_fails_the_job_at_once(
    connection: Redis, database: Engine, receiver: Receiver, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """A provider that refuses everything says the same in other words; what it refused is not lost."""
    book(database, *(booked(62 + n / 100, phone=f"+1415555{n:04}") for n in range(30)))
    receiver.answers = [401] + [404] * REFUSED_IN_A_ROW
    jobs = [SendAppointmentReminderJob.enqueue(types="sms", connection=connection) for _ in range(3)]
    log = run(start_worker, **environ)
    assert [job.get_status() for job in jobs] == [JobStatus.FAILED, JobStatus.FAILED, JobStatus.FINISHED]
    for status in (401, 404):
        line = f"sms: the provider of REMINDER_SMS_URL takes nothing from us (it answered HTTP {status}): check the URL"
        assert log.count(f"ConfigError: {line}") == 1, log
    assert jobs[2].return_value() == {"sms": {"sent": 30}}
    assert [each["status"] for each in receiver.messages] == [401] + [404] * REFUSED_IN_A_ROW + [200] * 30


@sqlite_alone
def test_many_bad_addresses_do_not_keep_the_others_from_their_reminders(
    connection: Redis, database: Engine, receiver: Receiver, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """A course with 25 participants in a country that the provider does not serve; everybody else comes later."""
    bad, good = [f"+4955500{n:04}" for n in range(25)], [f"+1415555{n:04}" for n in range(5)]
    book(database, *(booked(62 + n / 100, phone=phone) for n, phone in enumerate([*bad, *good])))
    receiver.answers = [403] * REFUSED_IN_A_ROW + [403] * 5 + [200] * len(good) + [403] * REFUSED_IN_A_ROW
    jobs = [SendAppointmentReminderJob.enqueue(types="sms", connection=connection) for _ in range(3)]
    log = run(start_worker, **environ)
    assert [job.get_status() for job in jobs] == [JobStatus.FAILED, JobStatus.FINISHED, JobStatus.FINISHED], log
    assert jobs[1].return_value() == {"sms": {"refused": 25, "sent": 5}}
    assert jobs[2].return_value() == {"sms": {"due": 0}}, "it is known by now that it is the addresses"
    assert Counter(each["path"] for each in receiver.taken) == {f"/sms/{phone}": 1 for phone in good}
    tried = Counter(each["path"] for each in receiver.messages)
    assert [tried[f"/sms/{phone}"] for phone in bad] == [2] * REFUSED_IN_A_ROW + [1] * 5


@sqlite_alone
def test_what_a_person_must_mend_is_one_line(
    connection: Redis, database: Engine, receiver: Receiver, start_worker: StartWorker
) -> None:
    enqueue: Callable[..., Job] = SendAppointmentReminderJob.enqueue
    jobs = [enqueue(types=types, connection=connection) for types in ("telex", ["email"], None)]
    log = run(start_worker, REMINDER_SMS_URL="jsons://hunter2@h")
    for line in (
        "no reminder type is called 'telex': there are push, sms, whatsapp, email",
        "REMINDER_EMAIL_URL is not set",
        "REMINDER_SMS_URL has no {to} in it",
    ):
        assert log.count(line) == 1, log
    assert "Traceback" not in log
    assert SECRET not in log
    assert [job.get_status() for job in jobs] == [JobStatus.FAILED] * 3


# The seeds


def test_seeded_appointments_of_another_day_are_at_the_same_hours() -> None:
    day = date(2026, 10, 20)  # clocks change within these two weeks, and do not in those of the stream
    midnight = datetime.combine(day, time(), tzinfo=timezone.utc)
    moved = [seeds.from_day(row, day) for row in seeds.appointments(7, 1000)]
    anew = list(seeds.appointments(7, 1000, around=midnight))
    for one, other in zip(moved, anew, strict=True):
        if zone_called(one["time_zone"]) is not None:
            assert one == other


def test_seeded_appointments_are_those_of_life() -> None:
    rows = list(seeds.appointments(7, 2500))
    unknown = sum(zone_called(row["time_zone"]) is None for row in rows)
    assert 0.5 < unknown / (seeds.UNKNOWN_ZONES * len(rows)) < 2
    for row in rows:
        zone = zone_called(row["time_zone"])
        if zone is not None:
            assert seeds.FIRST_HOUR <= row["starts_at"].astimezone(zone).hour < seeds.LAST_HOUR
    assert {bool(row[name]) for row in rows for name in ("email", "phone", "push_token")} == {True, False}
    assert {row["status"] for row in rows} == {"booked", "cancelled"}
