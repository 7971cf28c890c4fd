"""``rqmem exporter`` as Prometheus sees it: a real Redis, real workers, pages over HTTP; and what stands in docs/."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen
from wsgiref.simple_server import make_server

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

from rqmem import exporter
from rqmem.errors import ConfigError
from rqmem.policy.histogram import cumulative
from rqmem.prometheus.metrics import METRICS
from rqmem.prometheus.server import serving
from rqmem.store import codec, keys
from rqmem.store.history import clearing, history_reader, history_writer, run_counts
from rqmem.store.history.history_records import PEAK_BOUNDS_MB, SECONDS_BOUNDS, LiveJob, Run, Totals
from rqmem.store.history.kept_types import KEPT_TYPES
from rqmem.testing import wait_until
from rqmem.units import MB
from tests import forked, sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, OwnRedis, StartCommand, WorkerProcess, WorkOff
from tests.journal_filling import a_live, a_pool, a_run, fill, hold_back, register, remember

prometheus = pytest.importorskip("prometheus_client", reason="the extra 'metrics' is not installed")

DOCS = ROOT / "docs"
EXPORT, IMPORT = "jobs.exports.ExportJob", "jobs.imports.ImportJob"
_promtool = shutil.which("promtool")
with_promtool = pytest.mark.skipif(_promtool is None, reason="promtool (package prometheus) is not there")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Exporter:
    """A ``rqmem exporter`` beside the test."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        process.wait_for("; Ctrl-C ends it")
        found = re.search(r"http://\S+/metrics", process.printed)
        assert found, process.printed
        self.url = found[0]

    def text(self, accept: str = "text/plain") -> str:
        with urlopen(Request(self.url, headers={"Accept": accept}), timeout=60) as answer:
            assert answer.status == 200
            page: str = answer.read().decode()
            return page

    def page(self) -> Samples:
        return parsed(self.text())

    def end(self) -> str:
        """SIGTERM, and all that it said."""
        assert self.process.end(signal.SIGTERM) == 0, self.process.printed
        return self.process.printed


def parsed(text: str) -> Samples:
    from prometheus_client.parser import text_string_to_metric_families

    found = text_string_to_metric_families(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in found for each in family.samples}


def value(page: Samples, name: str, **labels: str) -> float:
    return page[name, frozenset(labels.items())]


def names(page: Samples) -> set[str]:
    return {name for name, _ in page}


@pytest.fixture
def start_exporter(redis_url: str, start_command: StartCommand) -> Callable[..., Exporter]:
    """Start it on the tests' server, or another."""
    return lambda url=redis_url: Exporter(start_command("exporter", "--port", "0", "--url", url))


def fill_all(connection: Redis) -> None:
    """Something for every metric."""
    fill(connection, EXPORT, "j-123")
    job = LiveJob(EXPORT, "j-123", "mail", time.time() - 14, 192, 250, 256, "items 1-50", 50)
    register(connection, "ada", "mail", state="busy", live=a_live("ada", job, pool="p"))
    register(connection, "bob", "mail")
    with connection.pipeline() as pipeline:
        history_writer.write_pool(pipeline, a_pool("p"), 60)
        pipeline.execute()
    hold_back(connection, "Rebuild", ["j9"], 1)
    with connection.pipeline() as pipeline:
        history_writer.count_dropped(pipeline, {"events": 1200})
        heavy = Run(job="jobs.heavy", ended_at=time.time(), outcome="ok", seconds=1, initial_mb=9, peak_mb=300,
                    limit_mb=512, needed_mb=512, tenant="acme", mb_seconds=300)  # fmt: skip
        history_writer.write_runs(pipeline, [heavy], {}, time.time())
        pipeline.execute()


# The page


def test_the_page_has_every_metric_of_the_catalogue_and_no_job_id(
    connection: Redis, start_exporter: Callable[..., Exporter]
) -> None:
    fill_all(connection)
    text = start_exporter().text()
    told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert told == {metric.name: metric.kind for metric in METRICS.values()}
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    assert helps == {metric.name: metric.help for metric in METRICS.values()}
    for name, labels in parsed(text):
        metric = METRICS.get(name) or METRICS[re.sub("_(bucket|sum|count)$", "", name)]
        assert {label for label, _ in labels} - {"le"} == set(metric.labels), name
    assert "j-123" not in text


def test_figures_of_workers_and_queues(connection: Redis, start_exporter: Callable[..., Exporter]) -> None:
    fill_all(connection)
    Queue("mail", connection=connection).enqueue(sample_jobs.add, 1)
    Queue("nobody's", connection=connection).enqueue(sample_jobs.add, 1)
    page = start_exporter().page()
    assert value(page, "rqmem_up") == 1
    assert value(page, "rqmem_workers", kind="rqmem", state="busy") == 1
    assert value(page, "rqmem_workers", kind="rq", state="idle") == 1
    assert value(page, "rqmem_workers", kind="silent", state="idle") == 0
    assert value(page, "rqmem_queue_jobs", queue="mail", state="queued") == 1
    assert value(page, "rqmem_queue_workers", queue="mail") == 2
    assert value(page, "rqmem_queue_workers", queue="nobody's") == 0
    assert value(page, "rqmem_worker_job_usage_bytes", worker="ada") == 192 * MB
    assert value(page, "rqmem_worker_job_limit_bytes", worker="ada") == 256 * MB
    assert value(page, "rqmem_worker_job_usage_ratio", worker="ada") == 0.75
    assert 13 < value(page, "rqmem_worker_job_seconds", worker="ada") < 60
    assert value(page, "rqmem_worker_memory_bytes", worker="ada") == 38 * MB
    assert value(page, "rqmem_worker_jobs_total", worker="ada") == 412
    assert value(page, "rqmem_job_running", job_type=EXPORT) == 1
    assert value(page, "rqmem_journal_dropped_total", kind="events") == 1200
    assert value(page, "rqmem_journal_dropped_total", kind="runs") == 0


def test_figures_of_job_types(connection: Redis, start_exporter: Callable[..., Exporter]) -> None:
    fill(connection, EXPORT, "one")
    now = time.time()
    remember(connection, a_run(EXPORT, "two", now), a_run(IMPORT, "three", now))
    page = start_exporter().page()
    assert value(page, "rqmem_job_runs_total", job_type=EXPORT) == 2
    assert value(page, "rqmem_job_items_total", job_type=EXPORT) == 2400
    assert value(page, "rqmem_job_freed_bytes_total", job_type=EXPORT) == 62 * MB
    assert value(page, "rqmem_job_collections_total", job_type=EXPORT) == 8
    assert value(page, "rqmem_job_alerts_total", job_type=EXPORT, rule="usage") == 1
    assert value(page, "rqmem_job_alerts_total", job_type=EXPORT, rule="memory-growth") == 0
    assert value(page, "rqmem_job_open_alerts", job_type=EXPORT, rule="usage") == 1
    assert value(page, "rqmem_job_limit_bytes", job_type=EXPORT) == 256 * MB
    assert value(page, "rqmem_job_peak_bytes_count", job_type=EXPORT) == 2
    assert value(page, "rqmem_job_peak_bytes_sum", job_type=EXPORT) == pytest.approx(2 * 158.7 * MB)
    assert value(page, "rqmem_job_peak_bytes_bucket", job_type=EXPORT, le="1.34217728e+08") == 0  # 128 MB
    assert value(page, "rqmem_job_peak_bytes_bucket", job_type=EXPORT, le="2.01326592e+08") == 2  # 192 MB
    assert value(page, "rqmem_job_run_seconds_sum", job_type=EXPORT) == pytest.approx(24.6)
    assert value(page, "rqmem_job_breaches_total", job_type=EXPORT, layer="watch") == 0
    assert value(page, "rqmem_job_runs_total", job_type=IMPORT) == 1


def test_what_a_real_worker_did_is_told_as_the_journal_tells_it(
    connection: Redis, work_off: WorkOff, start_exporter: Callable[..., Exporter]
) -> None:
    squares, plain = "tests.sample_jobs.Squares", "tests.sample_jobs.Plain"
    sample_jobs.Squares.enqueue(count=24, item_mb=30, heavy_from=8, connection=connection)
    for number in range(3):
        sample_jobs.Plain.enqueue("default", number=number, connection=connection)
    work_off("--memory", "200")
    page = start_exporter().page()
    now = time.time()
    for job_type in (squares, plain):
        tally = history_reader.tally(connection, job_type, now - 3600, now)
        for metric, figure in {
            "runs": tally.runs, "failures": tally.failed, "resumes": tally.resumed, "splits": tally.splits,
            "items": tally.items, "chunks": tally.chunks, "collections": tally.collections,
        }.items():  # fmt: skip
            assert value(page, f"rqmem_job_{metric}_total", job_type=job_type) == figure, metric
        layers = {layer: value(page, "rqmem_job_breaches_total", job_type=job_type, layer=layer)
                  for layer in ("checkpoint", "watch", "kill", "kernel")}  # fmt: skip
        assert {layer: count for layer, count in layers.items() if count} == tally.breaches
        told = {dict(labels)["rule"]: count for (name, labels), count in page.items()
                if name == "rqmem_job_alerts_total" and ("job_type", job_type) in labels}  # fmt: skip
        assert sum(told.values()) == tally.alerts
        peaks = [run.peak_mb for run in history_reader.runs(connection, job_type)]
        assert value(page, "rqmem_job_peak_bytes_count", job_type=job_type) == len(peaks)
        assert value(page, "rqmem_job_peak_bytes_sum", job_type=job_type) == pytest.approx(sum(peaks) * MB, rel=1e-6)
    assert value(page, "rqmem_job_runs_total", job_type=squares) == 2
    assert value(page, "rqmem_job_alerts_total", job_type=squares, rule="ceiling-exceeded") == 1


# Counters


def test_counters_survive_a_new_exporter_and_tallies_that_go_with_time(
    connection: Redis, start_exporter: Callable[..., Exporter]
) -> None:
    remember(connection, a_run(EXPORT, "one", time.time()))
    first = start_exporter()
    before = value(first.page(), "rqmem_job_runs_total", job_type=EXPORT)
    first.end()
    tallies = list(connection.scan_iter(f"{keys.PREFIX}:tally:*"))
    assert connection.unlink(*tallies) == 2
    remember(connection, a_run(EXPORT, "two", time.time()))
    assert (before, value(start_exporter().page(), "rqmem_job_runs_total", job_type=EXPORT)) == (1, 2)


def test_totals_are_small_and_go_with_their_type(connection: Redis) -> None:
    layers = ("checkpoint", "watch", "kill", "kernel", "")
    runs = [
        Run(job=f"jobs.Type{n}", job_id=f"{n}-{i}", queue="q", worker="w", ended_at=0, outcome="ok",
            seconds=0.001 * 2**i, initial_mb=1, peak_mb=1.5**i, limit_mb=256, layer=layers[i % 5], items=i,
            children=i % 2)
        for n in range(KEPT_TYPES + 5) for i in range(40)
    ]  # fmt: skip
    remember(connection, *runs)
    history_writer.trim(connection)
    kept = list(connection.scan_iter(keys.totals("*")))
    assert {key.decode().rpartition(":")[2] for key in kept} == set(history_reader.types(connection))
    assert len(kept) == KEPT_TYPES
    fields = connection.hlen(kept[0])
    assert fields <= 10 + len(layers) + len(PEAK_BOUNDS_MB) + len(SECONDS_BOUNDS) + 3
    size = history_reader.size(connection)["totals"]
    assert size[1] / size[0] < 2048
    assert 29 * 86400 < connection.ttl(kept[0]) <= 30 * 86400
    name = kept[0].decode().removeprefix(keys.totals(""))
    clearing.clear_type(connection, name)
    assert not connection.exists(kept[0])
    clearing.clear(connection)
    assert not list(connection.scan_iter(keys.totals("*")))


def test_alerts_about_no_job_are_counted(connection: Redis, start_exporter: Callable[..., Exporter]) -> None:
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [], {("", "worker-full"): 2, (EXPORT, "memory-usage"): 1}, time.time())
        pipeline.execute()
    page = start_exporter().page()
    assert value(page, "rqmem_job_alerts_total", job_type="", rule="worker-full") == 2
    assert value(page, "rqmem_job_alerts_total", job_type=EXPORT, rule="memory-usage") == 1
    assert list(history_reader.types(connection)) == [EXPORT]


def a_run_of(peak_mb: float, seconds: float) -> Run:
    return replace(a_run(EXPORT, "j", 0), peak_mb=peak_mb, seconds=seconds)


@given(st.lists(st.builds(a_run_of, st.floats(0, 1e6), st.floats(0, 1e6)), max_size=20))
def test_histograms_count_each_run_once_and_below_the_right_bounds(runs: list[Run]) -> None:
    fields = run_counts.counts_of_totals({"runs": len(runs)}, runs, {})
    totals = codec.from_hash(Totals, {name.encode(): str(amount).encode() for name, amount in fields.items()})
    for counts, bounds, values in (
        (totals.peaks, PEAK_BOUNDS_MB, [run.peak_mb for run in runs]),
        (totals.durations, SECONDS_BOUNDS, [run.seconds for run in runs]),
    ):
        found = cumulative(counts, bounds)
        assert found == [*((end, sum(v <= end for v in values)) for end in bounds), (None, len(runs))]
    assert totals.peak_mb == pytest.approx(sum(run.peak_mb for run in runs))


def test_totals_of_a_newer_rqmem_are_passed_over() -> None:
    totals = codec.from_hash(
        Totals, {b"runs": b"3", b"novelty": b"1", b"breach:watch": b"2", b"new:x": b"1", b"peak:7": b"9"}
    )
    assert (totals.runs, totals.breaches) == (3, {"watch": 2})
    assert cumulative(totals.peaks, PEAK_BOUNDS_MB)[-1] == (None, 0)


# When something is amiss


def test_redis_away_is_told_on_the_page_and_once_in_the_log(
    own_redis: OwnRedis, start_exporter: Callable[..., Exporter]
) -> None:
    running = start_exporter(own_redis.server.url)
    assert value(running.page(), "rqmem_up") == 1
    own_redis.kill()
    for _ in range(2):
        page = running.page()
        assert value(page, "rqmem_up") == 0
        assert names(page) == {"rqmem_up", "rqmem_build_info"}
    own_redis.start_again()
    wait_until(lambda: value(running.page(), "rqmem_up"))
    said = running.end()
    assert "Traceback" not in said
    assert (said.count("does not answer"), said.count("answers again")) == (1, 1), said


def test_it_starts_while_redis_is_away(start_exporter: Callable[..., Exporter]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        running = start_exporter(f"redis://:hunter2@127.0.0.1:{taken.getsockname()[1]}/0")
        assert value(running.page(), "rqmem_up") == 0
    said = running.end()
    assert "does not answer yet" in said
    assert "hunter2" not in said and "Traceback" not in said


def test_a_journal_of_another_version_is_told(connection: Redis, start_exporter: Callable[..., Exporter]) -> None:
    fill_all(connection)
    connection.set(keys.VERSION, 999)
    page = start_exporter().page()
    assert (value(page, "rqmem_up"), value(page, "rqmem_journal_readable")) == (1, 0)
    assert "rqmem_queue_jobs" in names(page)
    assert not any(name.startswith(("rqmem_job_", "rqmem_worker_")) for name in names(page))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "{taken}"], "port {taken} on 127.0.0.1 is in use"),
        (["--host", "no.such.host.invalid"], "--host 'no.such.host.invalid' is no address of this machine"),
        (["--host", "192.0.2.1"], "--host '192.0.2.1' is no address of this machine"),
        (["--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["--url", "http://localhost"], "--url 'http://localhost' cannot be used"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_bad_usage_is_one_line_and_exit_code_2(redis_url: str, options: list[str], message: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        taken = str(listening.getsockname()[1])
        done = rqmem("exporter", *(each.format(taken=taken) for each in options), RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ") and message.format(taken=taken) in line


def test_without_prometheus_client_one_line_says_what_to_install(redis_url: str) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None; from rqmem.cli import main; "
        "sys.argv = ['rqmem', 'exporter', '--port', '0']; main()"
    )
    done = forked.run_code(code, RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rqmem: metrics need prometheus-client, which is not installed: pip install 'rqmem[metrics]'"
    ]


# In one's own application


def test_mounted_in_a_wsgi_application(connection: Redis) -> None:
    remember(connection, a_run(EXPORT, "one", time.time()))
    with make_server("127.0.0.1", 0, exporter.wsgi_app(connection)) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        with urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=60) as answer:
            page = parsed(answer.read().decode())
        thread.join()
    assert value(page, "rqmem_job_runs_total", job_type=EXPORT) == 1


def test_registered_beside_ones_own_metrics(connection: Redis) -> None:
    registry = prometheus.CollectorRegistry(auto_describe=True)
    prometheus.Counter("orders", "Orders.", registry=registry).inc()
    registry.register(exporter.collector(connection))
    page = parsed(prometheus.generate_latest(registry).decode())
    assert (value(page, "orders_total"), value(page, "rqmem_up")) == (1, 1)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(exporter.collector(connection))


def test_registering_asks_redis_nothing() -> None:
    nobody = Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    registry = prometheus.CollectorRegistry(auto_describe=True)
    registry.register(exporter.collector(nobody))
    assert value(parsed(prometheus.generate_latest(registry).decode()), "rqmem_up") == 0


def test_a_connection_that_decodes_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="decode_responses"):
        exporter.collector(Redis.from_url(redis_url, decode_responses=True))


def test_several_scrapes_at_once(connection: Redis) -> None:
    fill_all(connection)
    pages: list[Samples] = []

    def scrape() -> None:
        with urlopen(address, timeout=60) as answer:
            pages.append(parsed(answer.read().decode()))

    with serving(connection, "127.0.0.1", 0) as address:
        threads = [Thread(target=scrape) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(pages) == 8
    assert len({frozenset(page) for page in pages}) == 1


def test_openmetrics_is_spoken_too(connection: Redis, start_exporter: Callable[..., Exporter]) -> None:
    fill_all(connection)
    text = start_exporter().text("application/openmetrics-text; version=1.0.0")
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    assert text.endswith("# EOF\n")
    assert "rqmem_job_runs" in {family.name for family in text_string_to_metric_families(text)}


# docs/


def test_the_page_on_metrics_is_the_catalogue() -> None:
    rows = re.findall(r"^\| `(rqmem_\w+)` \| (\w+) \| ([\w, -]+) \| (.*) \|$", (DOCS / "metrics.md").read_text(), re.M)
    assert rows == [
        (each.name, each.kind, ", ".join(each.labels) or "-", each.help) for each in METRICS.values()
    ]  # fmt: skip


def test_labels_are_explained() -> None:
    explained = set(re.findall(r"^\| (\w+) \| ", (DOCS / "metrics.md").read_text(), re.M)) - {"metric", "label"}
    assert explained == {label for metric in METRICS.values() for label in metric.labels}


def expressions() -> list[str]:
    """All PromQL of the dashboard, with values for Grafana's variables."""
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [each["definition"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert len(found) > 20
    values = {"$__rate_interval": "5m", "$job_type": ".*", "$queue": ".*"}
    for variable, instead in values.items():
        found = [expression.replace(variable, instead) for expression in found]
    assert not any("$" in expression for expression in found)
    return found


def check_names(text: str) -> set[str]:
    """The metrics that PromQL in ``text`` names: they exist, and so do the labels they are asked for."""
    told: dict[str, set[str]] = {}
    for name, metric in METRICS.items():
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        told |= {name + end: {*metric.labels, *(("le",) if end == "_bucket" else ())} for end in suffixes}
    found = set()
    for name, matchers in re.findall(r"\b(rqmem_[a-z_]+)(?:\{([^}]*)\})?", text):
        assert name in told, name
        assert set(re.findall(r"(\w+) ?(?:=~|!~|!=|=)", matchers)) <= told[name], (name, matchers)
        found.add(name)
    return found


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    used = check_names("\n".join(expressions()))
    assert len(used) > 20


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"])
               for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert max(x for x, _ in own) < 24 and not own & cells, panel["title"]
        cells |= own
        for target in panel.get("targets", []):
            labels = {label for metric in METRICS.values() for label in metric.labels} | {"instance"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


def test_the_rules_ask_for_metrics_that_exist() -> None:
    rules = (DOCS / "alert-rules.yml").read_text()
    assert len(check_names(rules)) > 10
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    tested = set(re.findall(r'alertname="(\w+)"', (ROOT / "tests/cli/alert-rules-test.yml").read_text()))
    assert alerts == tested


def promtool(*arguments: str, stdin: str | None = None, directory: Path = ROOT) -> None:
    assert _promtool is not None
    done = subprocess.run(
        [_promtool, *arguments], input=stdin, cwd=directory, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and not done.stderr.strip(), done.stdout + done.stderr


@with_promtool
def test_promtool_takes_the_rules_and_they_fire_when_due(tmp_path: Path) -> None:
    promtool("check", "rules", str(DOCS / "alert-rules.yml"))
    for file in (DOCS / "alert-rules.yml", ROOT / "tests/cli/alert-rules-test.yml"):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", "alert-rules-test.yml", directory=tmp_path)


@with_promtool
def test_promtool_takes_the_dashboard_queries(tmp_path: Path) -> None:
    queries = [expression for expression in expressions() if not expression.startswith("label_values")]
    rules: list[Mapping[str, Any]] = [{"record": f"r:{n}", "expr": query} for n, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


@with_promtool
def test_promtool_takes_the_page(connection: Redis, start_exporter: Callable[..., Exporter]) -> None:
    fill_all(connection)
    promtool("check", "metrics", stdin=start_exporter().text())
