"""Seeded customers: pure stream, valid numbers, whole campaigns only; and the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, select

from jobs.database import create_schema, open_database
from jobs.tables import Campaign, Customer
from seeds.campaign import seed_campaign
from seeds.customers import customers
from seeds.phone_numbers import MISTAKES, is_e164, valid_number
from tests import forked

REPOSITORY = Path(__file__).resolve().parents[2]

# Written down apart from the code: country code and digits after it, by each country's numbering plan.
NATIONAL_DIGITS = {
    "US": ("1", 10), "IN": ("91", 10), "BR": ("55", 11), "DE": ("49", 11), "FR": ("33", 9),
    "GB": ("44", 10), "ES": ("34", 9), "TR": ("90", 10), "IT": ("39", 10), "PL": ("48", 9),
}  # fmt: skip

SEEDS = st.integers(0, 2**40)
FIELDS = ("name", "phone", "country", "language", "notes")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/app.db")
    create_schema(engine)
    yield engine
    engine.dispose()


def _rows(engine: Engine, campaign_id: int) -> list[dict[str, str]]:
    columns = [getattr(Customer, name) for name in FIELDS]
    with engine.connect() as connection:
        chosen = select(*columns).where(Customer.campaign_id == campaign_id).order_by(Customer.id)
        return [dict(row._mapping) for row in connection.execute(chosen)]


def _statuses(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(Campaign.status).order_by(Campaign.id)).scalars())


# The stream


@given(SEEDS)
def test_valid_numbers_have_their_countrys_length(seed: int) -> None:
    for customer in customers(seed, 50):
        code, digits = NATIONAL_DIGITS[customer["country"]]
        if is_e164(customer["phone"]):
            assert re.fullmatch(rf"\+{code}[1-9][0-9]{{{digits - 1}}}", customer["phone"])


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(NATIONAL_DIGITS)), st.integers(0, 10**7))
def test_no_mistake_leaves_a_valid_number(rng, country: str, index: int) -> None:
    number = valid_number(rng, country, index)
    assert is_e164(number)
    assert not any(is_e164(mistake(number)) for mistake in MISTAKES)


def test_variation_is_that_of_life() -> None:
    many = list(customers(7, 20_000))
    invalid = [customer["phone"] for customer in many if not is_e164(customer["phone"])]
    assert 0.015 < len(invalid) / len(many) < 0.025
    assert {"", True, False} <= {number and number.startswith("+") for number in invalid}
    valid = [customer["phone"] for customer in many if is_e164(customer["phone"])]
    assert len(set(valid)) == len(valid)
    assert Counter(customer["country"] for customer in many).keys() == NATIONAL_DIGITS.keys()
    lengths = sorted(len(customer["notes"]) for customer in many)
    median = lengths[len(lengths) // 2]
    assert lengths[0] == 0
    assert 30 < median < 200
    assert 10 * median < lengths[-1] <= 4000
    assert any(not customer["name"].isascii() for customer in many)
    assert any("-" in customer["name"] for customer in many)
    assert max(len(customer["phone"]) for customer in many) <= 64


# The database


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=SEEDS, count=st.integers(1, 60), batch_size=st.integers(1, 70))
def test_what_is_stored_does_not_depend_on_the_batches(engine: Engine, seed: int, count: int, batch_size: int) -> None:
    seeded = seed_campaign(engine, count=count, seed=seed, batch_size=batch_size)
    expected = list(customers(seed, count))
    assert _rows(engine, seeded.campaign_id) == expected
    assert seeded.customers == count
    assert seeded.valid_numbers == sum(is_e164(customer["phone"]) for customer in expected)


def test_inserts_are_batched(engine: Engine) -> None:
    """Never more rows in hand than a batch, and one statement for each."""
    sizes: list[int] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(connection, cursor, statement, parameters, context, executemany) -> None:
        if statement.startswith("INSERT INTO customers"):
            sizes.append(len(parameters) if executemany else 1)

    told: list[int] = []
    seed_campaign(engine, count=2300, seed=7, on_batch=told.append)
    assert sizes == told == [1000, 1000, 300]


def test_a_campaign_is_pending_once_it_is_whole(engine: Engine) -> None:
    seen: list[str] = []
    seed_campaign(engine, count=20, seed=7, batch_size=10, on_batch=lambda _: seen.extend(_statuses(engine)))
    assert seen == ["seeding", "seeding"]
    assert _statuses(engine) == ["pending"]


CRASH = """
import os, signal, sys
from jobs.database import create_schema, open_database
from seeds.campaign import seed_campaign
batches = []
def die(rows):
    batches.append(rows)
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
engine = open_database(sys.argv[1])
create_schema(engine)
seed_campaign(engine, count=100, seed=7, batch_size=10, on_batch=die)
"""


def test_a_killed_run_leaves_nothing_that_looks_whole(engine: Engine) -> None:
    killed = _python("-c", CRASH, str(engine.url))
    assert killed.returncode == -signal.SIGKILL
    assert _statuses(engine) == ["seeding"]
    assert len(_rows(engine, 1)) == 20
    seed_campaign(engine, count=5, seed=7)
    assert _statuses(engine) == ["seeding", "pending"]


# The command


def _python(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environ}
    return forked.run([sys.executable, *arguments], cwd=cwd, env=environment, timeout=60)


def test_the_command_in_a_directory_with_a_space(tmp_path: Path) -> None:
    here = tmp_path / "a directory"
    here.mkdir()
    done = _python("-m", "seeds.campaign", "--customers", "1200", "--seed", "3", cwd=here, DATABASE_URL="")
    assert done.returncode == 0
    assert done.stderr == ""
    valid = sum(is_e164(customer["phone"]) for customer in customers(3, 1200))
    assert done.stdout == f"campaign 1: 1,200 customers ({valid:,} with valid numbers)\n"
    engine = open_database(f"sqlite:///{here}/rqmem-app.db")
    assert _rows(engine, 1) == list(customers(3, 1200))


def test_quiet_and_the_campaigns_own_values(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    command = ("-m", "seeds.campaign", "--customers", "3", "--database-url", url, "--quiet")
    assert _python(*command).stdout == "1\n"
    names = ("--name", "Früh ling", "--agent-id", "agent_7", "--from-number", "+14155550101")
    assert _python(*command, *names).stdout == "2\n"
    with open_database(url).connect() as connection:
        query = select(Campaign.name, Campaign.agent_id, Campaign.from_number).where(Campaign.id == 2)
        row = connection.execute(query).one()
    assert tuple(row) == ("Früh ling", "agent_7", "+14155550101")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--customers", "0"), "0 is not in the range x>=1"),
        (("--customers", "-5"), "-5 is not in the range x>=1"),
        (("--customers", "many"), "'many' is not a valid integer range"),
        (("--seed", "x"), "'x' is not a valid integer"),
        (("--from-number", "0151"), "'0151' is not E.164"),
        (("--database-url", "sqlite:////no/such/directory/app.db"), "unable to open"),
        (("--database-url", "nothing"), "DATABASE_URL is not a database URL"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = _python("-m", "seeds.campaign", *arguments, cwd=tmp_path, DATABASE_URL="")
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in done.stderr


def test_a_schema_that_does_not_fit_is_one_line_and_exit_2(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    with open_database(url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE campaigns (id INTEGER PRIMARY KEY)")
    done = _python("-m", "seeds.campaign", "--customers", "3", "--database-url", url)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: database ")
    assert "is an older version's: its table campaigns has no column" in done.stderr
