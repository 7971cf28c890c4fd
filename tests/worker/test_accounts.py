"""Accounts: MB times seconds, by job type and by tenant."""

from __future__ import annotations

import dataclasses
import json

import pytest
from redis import Redis
from rq import Queue

import rqmem.api
from rqmem import MemoryAwareJob, memory_aware
from rqmem.errors import ConfigError
from rqmem.policy.memory_curve import MemoryCurve
from rqmem.store import keys
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import Run
from rqmem.worker.running_job import _mb_seconds
from tests import per_type_jobs
from tests.cli.test_commands import rqmem as command
from tests.conftest import WorkOff
from tests.journal_filling import a_run

NAME = "tests.per_type_jobs.ForTenant"


def test_what_tenants_used_is_in_api_report_and_exporter(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    queue = Queue("jobs", connection=connection)
    per_type_jobs.ForTenant.enqueue(tenant_id="acme", seconds=1.5, size_mb=60, connection=connection)
    per_type_jobs.ForTenant.enqueue("jobs", 7, connection=connection)
    queue.enqueue(per_type_jobs.for_tenant, 7)
    queue.enqueue("tests.per_type_jobs.ForTenant.run", None)
    work_off("jobs", "--memory", "256")
    acme, seven = rqmem.api.tenants(connection=connection)
    assert (acme.tenant, seven.tenant) == ("acme", "7")
    assert 1.5 * 60 < acme.mb_seconds < 300 and 1.0 < seven.mb_seconds < acme.mb_seconds
    assert acme.to_json() == {"version": 2, "tenant": "acme", "mb_seconds": round(acme.mb_seconds, 1)}
    types = {each.job_type: each for each in rqmem.api.job_types(connection=connection)}
    assert types[NAME].tally.mb_seconds > acme.mb_seconds
    report = json.loads(command("report", "--json", RQMEM_REDIS_URL=redis_url).stdout)
    assert [each["tenant"] for each in report["tenants"]] == ["acme", "7"]
    assert all(each["mb_seconds"] > 0 for each in report["job_types"])
    text = command("report", RQMEM_REDIS_URL=redis_url).stdout
    assert f"tenants by MB seconds: acme {acme.mb_seconds:,.0f}, 7 {seven.mb_seconds:,.0f}" in text
    assert history_reader.tenants_in_all(connection).keys() == {"acme", "7"}


def test_the_tenants_that_used_most_are_kept(connection: Redis) -> None:
    def ran(number: int) -> Run:
        run = a_run("jobs.x", f"j{number}", 7200.0)
        return dataclasses.replace(run, tenant=f"t{number}", mb_seconds=float(number))

    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [ran(number) for number in range(1, 301)], {}, 7200.0)
        pipeline.execute()
    kept = history_reader.tenants(connection, 7200.0, 7300.0)
    assert len(kept) == history_writer.KEPT_TENANTS
    assert min(kept.values()) == 101
    assert connection.ttl(keys.tenants("h", 2)) > 0 and connection.ttl(keys.TENANTS) == -1


def test_mb_seconds_are_the_area_below_the_curve() -> None:
    curve = MemoryCurve()
    for at, mb in ((0.0, 10.0), (1.0, 10.0), (1.01, 100.0), (1.99, 100.0)):
        curve.add(at, mb)
    assert _mb_seconds(curve, 2.0, 100.0) == pytest.approx(110, rel=0.15)
    assert _mb_seconds(MemoryCurve(), 0.01, 50.0) == 0.5


@pytest.mark.parametrize(
    ("tenant", "error"),
    [("tennant", r"tenant is 'tennant': the job takes no argument .* \(tenant_id\)"), (3, "tenant is 3: name an arg")],
)
def test_a_tenant_that_is_no_argument_is_one_clear_error(tenant: object, error: str) -> None:
    def handle(self: object, tenant_id: int) -> None: ...

    def function(tenant_id: int) -> None: ...

    with pytest.raises(ConfigError, match=error):
        type("Wrong", (MemoryAwareJob,), {"handle": handle, "tenant": tenant})
    with pytest.raises(ConfigError, match=error):
        memory_aware(tenant=tenant)(function)  # type: ignore[arg-type]
