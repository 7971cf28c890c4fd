"""README and docs: links lead somewhere, commands exist, tables are the code's, examples run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from rqmem.cli import main as rqmem
from rqmem.config.settings import SETTINGS, Config
from scripts import docs_tables
from tests import forked
from tests.conftest import ROOT, StartWorker

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
MOST_LINES_OF_README = 120


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def files(page: Path) -> dict[str, str]:
    """The examples of a page that begin with the name of their file."""
    named = {code.splitlines()[0].removeprefix("# "): code for code in blocks(page, "python")}
    return {name: code for name, code in named.items() if re.fullmatch(r"\w+\.py", name)}


def commands(page: Path) -> list[list[str]]:
    """The words of each rqmem command in a page, in a block or within a line."""
    text = page.read_text()
    lines = re.findall(r"^\$ (rqmem .*)$", text, re.MULTILINE) + re.findall(r"`(rqmem [^`]+)`", text)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_and_option_exists(page: Path) -> None:
    for words in commands(page):
        command: click.Command = rqmem
        context = click.Context(command)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            if found is None:
                assert command is not rqmem, f"rqmem has no command {words[0]}"
                break
            command, words = found, words[1:]
        known = {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert used <= known | {"--version", "-h"}, (page_id(page), command.name, used - known)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_make_target_and_script_is_real(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = re.findall(r"(?:^\$ |`)make ([a-z0-9 -]+)", text, re.MULTILINE)
    assert {word for words in named for word in words.split()} <= targets
    for module in re.findall(r"python -m ((?:scripts|seeds|jobs)[\w.]*)", re.sub(r"-m\s+", "-m ", text)):
        assert import_module(module)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_example_compiles_and_imports_what_there_is(page: Path) -> None:
    for code in blocks(page, "python"):
        tree = ast.parse(code)
        for each in ast.walk(tree):
            if isinstance(each, ast.ImportFrom) and (each.module or "").partition(".")[0] in ("rqmem", "rq"):
                module = import_module(each.module or "")
                missing = [alias.name for alias in each.names if not hasattr(module, alias.name)]
                assert not missing or all(import_module(f"{each.module}.{name}") for name in missing)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_OF_README


def test_every_page_is_reachable_from_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        links = re.findall(r"\]\((?!https?://)([^)#\s]+\.md)", page.read_text())
        waiting += {(page.parent / link).resolve() for link in links} - seen
    assert set(DOCS.rglob("*.md")) <= seen


def test_the_tables_are_as_they_are_declared() -> None:
    for name, (page, table) in docs_tables.TABLES.items():
        assert docs_tables.in_page(name, page.read_text()) == table(), "python -m scripts.docs_tables --update"


def test_every_setting_has_a_row_and_its_default_is_the_one_that_is_read() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", (DOCS / "settings.md").read_text(), re.MULTILINE))
    assert set(rows) == {setting.variable for setting in SETTINGS.values()}
    for field, setting in SETTINGS.items():
        value, shown = getattr(Config(), field), rows[setting.variable]
        assert not value if shown == "none" else setting.parse(shown, setting.variable) == value


def test_the_json_line_has_its_keys_in_their_order() -> None:
    [line] = blocks(DOCS / "chunks.md", "json")
    assert list(json.loads(line))[-3:] == ["job_id", "queue", "worker"]


def enqueue(script: str, redis_url: str, directory: Path) -> list[str]:
    """Run a script that ends with jobs in variables; their ids."""
    jobs = re.findall(r"^(\w+) = \w+\.enqueue\(", script, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint({', '.join(f'{name}.id' for name in jobs)})"],
        env={"RQMEM_REDIS_URL": redis_url, "PYTHONPATH": f"{directory}:{ROOT}", "PATH": ""},
        cwd=directory, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "chunks.md"], ids=page_id)
def test_the_job_in_chunks_runs(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker, page: Path
) -> None:
    [(name, module)] = [each for each in files(page).items() if "SendInvoices" in each[1]]
    (tmp_path / name).write_text(module)
    [script] = [each for each in blocks(page, "python") if "SendInvoices.enqueue(" in each]
    ids = enqueue(script, redis_url, tmp_path)
    assert ids
    start_worker("invoices", "night", "--burst", "--memory", "256", directory=tmp_path).finish()
    for job_id in ids:
        assert Job.fetch(job_id, connection=connection).return_value() == 1000


def test_many_jobs_are_enqueued(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "invoices.py").write_text(files(ROOT / "README.md")["invoices.py"])
    (tmp_path / "reports.py").write_text("def monthly(megabytes): ...")
    examples = blocks(DOCS / "enqueue-many.md", "python")
    environ = {"RQMEM_REDIS_URL": redis_url, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    subprocess.run([sys.executable, "-c", "".join(examples)], env=environ, cwd=tmp_path, check=True)
    assert Queue("invoices", connection=connection).count == 12
    assert Queue("reports", connection=connection).count == 10_000


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "splits.md"], ids=page_id)
def test_the_job_that_splits_runs(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker, page: Path
) -> None:
    [(name, module)] = [each for each in files(page).items() if "SumOfSquares" in each[1]]
    (tmp_path / name).write_text(module)
    path = f"{name.removesuffix('.py')}.SumOfSquares.run"
    job = Queue("squares", connection=connection).enqueue(path, numbers=2600)
    start_worker("squares", "--burst", directory=tmp_path).finish()
    assert job.return_value() == sum(number * number for number in range(2600))
    assert len(Job.fetch(job.id, connection=connection).fetch_dependencies()) == 6


def test_the_declared_function_runs() -> None:
    """In a process of its own: this one may use more than 200 MB."""
    code = files(DOCS / "ceilings.md")["yearly.py"] + "\nprint(build_report(2026))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1000\n"


def test_the_example_tests_pass(tmp_path: Path) -> None:
    (tmp_path / "test_reports.py").write_text(files(DOCS / "testing.md")["test_reports.py"])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = forked.run(command, env={"PYTHONPATH": str(ROOT), "PATH": ""}, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout


def test_the_job_that_escalates_runs(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker
) -> None:
    page = DOCS / "escalation.md"
    (tmp_path / "reports.py").write_text(files(page)["reports.py"])
    job = Queue("reports", connection=connection).enqueue("reports.BuildReport.run", size_mb=180)
    function = Queue("reports", connection=connection).enqueue("reports.build", 180)
    log = start_worker("reports", "--burst", "--memory", "512", directory=tmp_path).finish()
    assert job.return_value() == function.return_value() == 180 * 2**20, log
    [line] = [each for each in blocks(page, "") if "goes on" in each]
    assert line.partition(") ")[2].strip() in log


def test_each_of_twenty_questions_is_answered_within_two_clicks() -> None:
    """One from README to the questions, one to a page or section that is about it."""
    questions = DOCS / "README.md"
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()
    asked = re.findall(r"^(\d+)\. \*\*(.+?)\*\*(.*)$", questions.read_text(), re.MULTILINE)
    assert [int(number) for number, *_ in asked] == list(range(1, len(asked) + 1)) and len(asked) >= 20
    for _, question, answer in asked:
        links = re.findall(r"\]\(([^)#]+)", answer)
        assert links and all((questions.parent / link).exists() for link in links), question


def test_the_jobs_that_are_unique_or_limited_run(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker
) -> None:
    for name, code in files(DOCS / "unique.md").items():
        (tmp_path / name).write_text(code)
    [script] = [each for each in blocks(DOCS / "unique.md", "python") if "SendInvoice.enqueue(" in each]
    calls = """
from imports import CallPartner, ImportFile, SyncTenant
for number in range(3):
    CallPartner.enqueue(partner="a", order=number)
    SyncTenant.enqueue(tenant_id=number)
    ImportFile.enqueue(path="a")
    ImportFile.enqueue(path="b")
"""
    enqueue(script, redis_url, tmp_path)
    enqueue(calls, redis_url, tmp_path)
    assert connection.llen("rq:queue:imports") == 1 + 3 + 3
    start_worker("invoices", "imports", "--burst", directory=tmp_path).finish()
    assert connection.zcard("rq:finished:invoices") == 1
    assert connection.zcard("rq:finished:imports") == 12
