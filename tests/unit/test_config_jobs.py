"""What job types declare, and what applies; the tables of it, those of the docs among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rqmem import MemoryAwareJob, memory_aware
from rqmem.cli.config_tables import ConfiguredType, jobs_json, jobs_lines, split_rule
from rqmem.config.load import Origin, Settings
from rqmem.config.settings import Config, JobSettings
from rqmem.errors import ConfigError
from rqmem.job.declared import Declared, applied, find, of_path
from rqmem.policy.recommendation import TooLittle
from scripts import docs_tables

JOB = "jobs.mail.Send"


def config(*, file: JobSettings | None = None, **values: object) -> Settings:
    jobs = {JOB: file} if file is not None else {}
    origins = {name: Origin("environment", name.upper()) for name in values}
    return Settings(Config(**values, jobs=jobs), origins, "rqmem.ini" if jobs else None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared_mb", "settings", "limit_mb", "origin"),
    [
        (None, config(), 256, ("default", "")),
        (None, config(default_limit_mb=100.0), 100, ("environment", "DEFAULT_LIMIT_MB")),
        (None, config(memory_mb=300.0), 300, ("environment", "MEMORY_MB")),
        (512, config(), 512, ("job class", JOB)),
        (512, config(memory_mb=300.0), 300, ("environment", "MEMORY_MB")),
        (512, config(memory_mb=600.0), 512, ("job class", JOB)),
        (512, config(file=JobSettings(memory_limit_mb=700)), 700, ("config file", "rqmem.ini")),
        (None, config(file=JobSettings(memory_limit_mb=700)), 700, ("config file", "rqmem.ini")),
        (512, config(file=JobSettings(memory_limit_mb=700), memory_mb=600.0), 600, ("environment", "MEMORY_MB")),
        (512, config(file=JobSettings(chunk_size=7)), 512, ("job class", JOB)),
    ],
)
def test_which_ceiling_applies_and_why(
    declared_mb: float | None, settings: Settings, limit_mb: float, origin: tuple[str, str]
) -> None:
    found = applied(Declared(JOB, JobSettings(memory_limit_mb=declared_mb)), settings)
    assert found.limits.memory_limit_mb == limit_mb
    assert found.origins["memory_limit_mb"] == Origin(*origin)  # type: ignore[arg-type]


def test_chunks_and_children_fall_back_to_the_defaults() -> None:
    found = applied(Declared(JOB, JobSettings(bytes_per_item=2048)), config(default_chunk_size=7))
    assert found.limits == JobSettings(256, 7, 2048, None, 500)
    assert found.origins["chunk_size"] == Origin("environment", "DEFAULT_CHUNK_SIZE")
    assert found.origins["bytes_per_item"] == Origin("job class", JOB)


def test_job_types_are_found_in_a_module() -> None:
    found = {each.job: each for each in find("tests.sample_jobs")}
    plain = found["tests.sample_jobs.Plain"]
    assert (plain.limits.memory_limit_mb, plain.queue, plain.on_breach) == (200, "plain", "fail")
    assert found["tests.sample_jobs.aware"].limits == JobSettings(memory_limit_mb=100)
    assert found["tests.sample_jobs.Counted"].splits and not plain.splits
    assert "tests.sample_jobs.add" not in found  # a plain function declares nothing
    assert list(found) == sorted(found)


def test_a_package_is_searched_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "searched" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    (inner / "mail.py").write_text(
        "from rqmem import MemoryAwareJob\nfrom tests.sample_jobs import Plain\n"
        'class Send(MemoryAwareJob):\n    """Send it.\n\n    At once.\n    """\n'
    )
    (inner / "__main__.py").write_text("raise SystemExit('this is a program')")
    monkeypatch.syspath_prepend(tmp_path)
    [send] = find("searched")
    assert (send.job, send.about) == ("searched.inner.mail.Send", "Send it.")
    (inner / "later.py").write_text("import no_such_thing")
    with pytest.raises(ConfigError, match=r"searched\.inner\.later cannot be imported: ModuleNotFoundError"):
        find("searched")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no.such.module", "no.such.module cannot be imported: there is no module no: "),
        ("rqmem.units", "rqmem.units defines no MemoryAwareJob and no @memory_aware function"),
    ],
)
def test_a_module_without_jobs(module: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(module)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.at.all", "there is no module nowhere"),
        ("tests.sample_jobs.Gone", "module 'tests.sample_jobs' has no attribute 'Gone'"),
        ("tests.broken_module.Job", r"cannot be imported: RuntimeError: .* \(broken_module\.py:"),
        ("rqmem.units.MB", "rqmem.units.MB is no job: int"),
    ],
)
def test_a_path_that_is_no_job_any_more(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of_path(path)


def test_a_path_of_a_class_or_function() -> None:
    assert of_path("tests.sample_jobs.Plain").limits.memory_limit_mb == 200
    assert of_path("tests.sample_jobs.add") == Declared("tests.sample_jobs.add")


def test_a_decorated_function_without_a_ceiling_is_a_job_too() -> None:
    @memory_aware()
    def bare() -> None: ...

    assert hasattr(bare, "__rqmem_limit_mb__")


class TakesItems(MemoryAwareJob):
    def handle(self, items: object = None) -> None: ...


class ForChildrenOnly(MemoryAwareJob):
    def handle(self, items: object) -> None: ...


def test_who_splits_into_its_own_kind() -> None:
    own = {each.job.rpartition(".")[2]: each.splits for each in find(__name__)}
    assert own == {"ForChildrenOnly": False, "TakesItems": True}


def test_without_a_worker_the_file_is_heeded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rqmem.ini").write_text(f"[job {TakesItems.path()}]\nmemory_limit_mb = 4096\nchunk_size = 3\n")
    job = TakesItems()
    assert [len(chunk) for chunk in job.chunks(range(7), adaptive=False)] == [3, 3, 1]
    assert (job.memory_limit_mb, TakesItems.memory_limit_mb) == (4096, None)
    job.finalize_memory_monitoring()
    assert [len(chunk) for chunk in job.chunks(range(7), chunk_size=4)] == [4, 3]  # given in the call


@pytest.mark.parametrize(
    ("limits", "splits", "words"),
    [
        (JobSettings(split_above_items=1000, bytes_per_item=2048), True, "above 1,000 items"),
        (JobSettings(bytes_per_item=2048), False, "by 2 KB an item"),
        (JobSettings(bytes_per_item=1536), False, "by 1.5 KB an item"),
        (JobSettings(), True, "by what items were seen to cost"),
        (JobSettings(), False, ""),
    ],
)
def test_when_a_job_splits_in_words(limits: JobSettings, splits: bool, words: str) -> None:
    assert split_rule(limits, splits) == words


def test_notes_below_the_table() -> None:
    settings = config(file=JobSettings(memory_limit_mb=700, chunk_size=7), memory_mb=600.0)
    declared = Declared(JOB, JobSettings(memory_limit_mb=512))
    rows = [
        ConfiguredType(JOB, declared, applied(declared, settings), recommended=TooLittle(3)),
        ConfiguredType("jobs.gone.Job", problem="cannot be imported: there is no module jobs.gone"),
    ]
    table, _, notes = "\n".join(jobs_lines(rows, "nothing is recommended: no Redis")).partition("\n\n")
    assert [line.split() for line in table.splitlines()[1:]] == [
        [JOB, "512", "MB", "600", "MB", "-", "7", "-"],
        ["jobs.gone.Job", "?", "?", "-", "?", "?"],
    ]
    assert notes.splitlines() == [
        f"{JOB}: the config file says memory_limit_mb 700, its class 512",
        f"{JOB}: the config file says chunk_size 7",
        f"{JOB}: 700 MB cut to 600 MB by MEMORY_MB",
        "jobs.gone.Job: cannot be imported: there is no module jobs.gone",
        "nothing is recommended: no Redis",
    ]
    shown = jobs_json(rows, settings, "")
    assert shown["job_types"][0]["runs_needed"] == 20 and shown["job_types"][0]["recommended"] is None
    assert shown["job_types"][0]["applies"]["items_per_child"] == {"value": 500, "origin": "default", "source": None}
    assert shown["job_types"][1]["declared"] is None and shown["job_types"][1]["problem"]


# The docs


def test_the_table_of_jobs_has_all_of_them() -> None:
    jobs = {each.job.rpartition(".")[2] for each in docs_tables.jobs()}
    assert {"ProcessRetellAICampaignJob", "ProcessRetellAICampaignBatchJob", "TrainMLModelJob"} <= jobs
    assert len({each.job.rpartition(".")[0] for each in docs_tables.jobs()}) == 6
    assert all(each.about and each.queue for each in docs_tables.jobs())


def test_the_tables_go_between_their_comments_and_nowhere_else() -> None:
    begin, end = docs_tables.marks("settings")
    new = docs_tables.replaced(begin, end, f"before\n{begin}\nold\n{end}\nafter\n", "| new |")
    assert new == f"before\n{begin}\n\n| new |\n\n{end}\nafter\n"
    assert docs_tables.in_page("settings", new) == "| new |"


@pytest.mark.parametrize(
    "text", ["", docs_tables.marks("settings")[0], "\n".join(reversed(docs_tables.marks("settings")))]
)
def test_no_place_for_a_table_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="has no place for the table"):
        docs_tables.in_page("settings", text)
