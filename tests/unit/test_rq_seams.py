"""The list of what rqmem relies on in RQ: it is complete, and an RQ that differs in any entry is refused."""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import rq.executions
import rq.queue
import rq.registry
import rq.results
import rq.scheduler
import rq.worker
import rq.worker_pool
from rq.job import Job

from rqmem.errors import UnsupportedRq
from rqmem.rq_check import check, differences
from rqmem.rq_seams import CLI_PARTS, ENQUEUE_OPTIONS, PARTS, Part
from tests.conftest import ROOT

ALL = (*PARTS, *CLI_PARTS)
OVERRIDDEN = [(part, entry) for part in ALL for entry in part.overridden]
CALLABLE = OVERRIDDEN + [(part, entry) for part in ALL for entry in part.called]
CALLERS = [
    (part, _name, caller)
    for part, entry in OVERRIDDEN
    for _name in [entry.partition("(")[0]]
    for caller in filter(None, entry.partition(" <- ")[2].split(", "))
]
NAMES = [(part, name) for part in ALL for name in part.names.split()]
VALUES = [(part, name) for part in ALL for name in part.values]
INSIDE = [(part, name, text) for part in ALL for name, texts in part.inside.items() for text in texts.split()]


def test_the_installed_rq_has_all_of_it() -> None:
    assert list(differences(ALL)) == []


# Another RQ is refused


def owner_of(part: Part) -> Any:
    module, _, name = part.where.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def homes(owner: Any, name: str) -> list[Any]:
    """The module, or the classes, that define the name."""
    return [each for each in getattr(owner, "__mro__", (owner,)) if name in vars(each)]


def function_of(owner: Any, name: str) -> FunctionType:
    found = inspect.getattr_static(owner, name)
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    return inspect.unwrap(found)


def rename_inside(monkeypatch: pytest.MonkeyPatch, function: FunctionType, name: str) -> None:
    """As if the function's source named something else there."""

    def renamed(value: Any) -> Any:
        if isinstance(value, CodeType):
            return value.replace(
                co_names=tuple(map(renamed, value.co_names)), co_consts=tuple(map(renamed, value.co_consts))
            )
        if isinstance(value, tuple):
            return tuple(map(renamed, value))
        return f"{name}_renamed" if value == name and isinstance(value, str) else value

    monkeypatch.setattr(function, "__code__", renamed(function.__code__))


def remove(monkeypatch: pytest.MonkeyPatch, part: Part, name: str) -> None:
    owner = owner_of(part)
    if isinstance(owner, type) and issubclass(owner, enum.Enum):
        module, _, enum_name = part.where.partition(":")
        left = {member.name: member.value for member in owner if member.name != name}
        monkeypatch.setattr(f"{module}.{enum_name}", enum.Enum(enum_name, left, type=str))
        return
    for home in homes(owner, name):
        monkeypatch.delattr(home, name)
    if isinstance(owner, type):
        for home in homes(owner, "__init__"):
            if isinstance(vars(home)["__init__"], FunctionType):
                rename_inside(monkeypatch, vars(home)["__init__"], name)


def assert_refused(part: Part, *words: str) -> None:
    with pytest.raises(UnsupportedRq) as refused:
        check(ALL)
    assert refused.value.exit_code == 2
    line = str(refused.value)
    assert "\n" not in line
    found = [each for each in differences([part]) if all(word in each for word in words)]
    assert found, list(differences([part]))


def of_entries(entries: list[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    ids = [" ".join([each[0].where, *map(str, each[1:])]).partition("(")[0] for each in entries]
    return pytest.mark.parametrize("entry", entries, ids=ids)


@of_entries(CALLABLE)
def test_a_renamed_function_is_refused(entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch) -> None:
    part, name = entry[0], entry[1].partition("(")[0]
    owner = owner_of(part)
    for home in homes(owner, name):
        if home is not object:
            monkeypatch.setattr(home, f"{name}_renamed", vars(home)[name], raising=False)
            monkeypatch.delattr(home, name)
    assert_refused(part, f".{name}")


@of_entries(CALLABLE)
def test_a_function_with_other_parameters_is_refused(entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch) -> None:
    part, name = entry[0], entry[1].partition("(")[0]
    owner = owner_of(part)

    def changed(first, second, third, fourth, fifth, sixth, seventh):  # type: ignore[no-untyped-def]
        pass

    changed.__module__ = "rq.worker"
    monkeypatch.setattr(owner, name, changed)
    assert_refused(part, f".{name}(", f"but {name}(first")


@of_entries([each for each in OVERRIDDEN if "()" not in each[1]])
def test_a_renamed_parameter_of_what_we_override_is_refused(
    entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name = entry[0], entry[1].partition("(")[0]
    function = function_of(owner_of(part), name)
    code = function.__code__
    renamed = (code.co_varnames[0], f"{code.co_varnames[1]}_renamed", *code.co_varnames[2:])
    monkeypatch.setattr(function, "__code__", code.replace(co_varnames=renamed))
    assert_refused(part, f"but {name}({renamed[1]}")


@of_entries([each for each in OVERRIDDEN if "=" in each[1] and "__init__" not in each[1]])
def test_a_parameter_that_must_be_given_now_is_refused(
    entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name = entry[0], entry[1].partition("(")[0]
    function = function_of(owner_of(part), name)
    assert function.__defaults__
    monkeypatch.setattr(function, "__defaults__", function.__defaults__[1:] or None)
    assert_refused(part, f".{name}(", f"but {name}(")


@of_entries(CALLERS)
def test_an_rq_that_does_not_call_what_we_override_is_refused(
    entry: tuple[Part, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name, caller = entry
    module, _, function = caller.rpartition(":")
    where = importlib.import_module(module) if module else owner_of(part)
    rename_inside(monkeypatch, function_of(where, function), name)
    assert_refused(part, f".{name} that {function} calls")


@of_entries(NAMES)
def test_a_renamed_attribute_is_refused(entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch) -> None:
    part, name = entry
    remove(monkeypatch, part, name)
    assert_refused(part, f"{part.where.replace(':', '.')}.{name}")


@of_entries(VALUES)
def test_another_value_is_refused(entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch) -> None:
    part, name = entry
    owner = owner_of(part)
    if isinstance(owner, type):
        remove(monkeypatch, part, name)
    else:
        monkeypatch.setattr(owner, name, "another")
    assert_refused(part, f".{name} that is")


@of_entries(INSIDE)
def test_another_field_or_option_is_refused(entry: tuple[Part, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    part, name, text = entry
    rename_inside(monkeypatch, function_of(owner_of(part), name), text)
    assert_refused(part, f".{name} with {text!r} in it")


@of_entries([(part, option) for part in ALL for options in part.options.values() for option in sorted(options)])
def test_a_renamed_enqueue_option_is_refused(entry: tuple[Part, str], monkeypatch: pytest.MonkeyPatch) -> None:
    rename_inside(monkeypatch, function_of(owner_of(entry[0]), "parse_args"), entry[1])
    assert_refused(entry[0], f"parse_args with the option {entry[1]!r}")


def test_a_new_enqueue_option_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose ``handle`` has a parameter of that name would never get it."""
    function = function_of(rq.queue.Queue, "parse_args")
    code = function.__code__
    monkeypatch.setattr(function, "__code__", code.replace(co_consts=(*code.co_consts, "priority")))
    with pytest.raises(UnsupportedRq, match="parse_args that leaves 'priority' to the job"):
        check()


@pytest.mark.parametrize("part", ALL, ids=lambda part: part.where)
def test_a_renamed_module_or_class_is_refused(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = part.where.partition(":")
    if name:
        monkeypatch.delattr(importlib.import_module(module), name)
    else:
        monkeypatch.setitem(sys.modules, module, None)
    assert_refused(part, part.where.replace(":", "."))


def test_new_parameters_with_a_default_do_not_matter_to_what_we_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def requeue(self, at_front=False, priority=0):  # type: ignore[no-untyped-def]
        pass

    requeue.__module__ = "rq.job"
    monkeypatch.setattr(Job, "requeue", requeue)
    check()


def test_a_library_that_instruments_rq_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sentry does, in the place of a method that is overridden, calls others and is called."""
    original = rq.worker.Worker._finalize_failure

    def patched(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return original(self, *args, **kwargs)

    monkeypatch.setattr(rq.worker.Worker, "_finalize_failure", patched)
    check()
    monkeypatch.setattr(rq.worker.Worker, "_finalize_failure", functools.wraps(original)(functools.partial(patched)))
    check()


def test_the_line_names_the_difference_both_versions_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rq, "__version__", "3.7.1")
    monkeypatch.delattr(rq.worker.BaseWorker, "handle_job_success")
    with pytest.raises(UnsupportedRq) as refused:
        check()
    line = str(refused.value)
    for word in (
        "rqmem 0.",
        "the installed RQ 3.7.1",
        "rq.worker.Worker.handle_job_success",
        "RQ >=3.0,<3.1",
        "pip install",
    ):
        assert word in line, line


# The list is complete

LISTED = {part.where: part for part in ALL}


def listed(part: Part) -> set[str]:
    """Names that the list has of that class or module."""
    of_entries = {entry.partition("(")[0] for entry in (*part.overridden, *part.called)}
    return of_entries | set(part.names.split()) | set(part.values)


EVERY_NAME = set().union(*map(listed, ALL)) | {part.where.partition(":")[2] for part in ALL}


@functools.cache
def trees() -> list[tuple[Path, ast.Module]]:
    paths = sorted((ROOT / "rqmem").rglob("*.py"))
    return [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in paths]


def test_every_method_of_rq_that_we_override_is_listed() -> None:
    for path, tree in trees():  # so that each class of ours that derives from RQ's is known
        if works_with_rq(tree):
            importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    overriding = set()
    for where, theirs in (
        ("rq.worker:Worker", rq.worker.Worker),
        ("rq.scheduler:RQScheduler", rq.scheduler.RQScheduler),
        ("rq.worker_pool:WorkerPool", rq.worker_pool.WorkerPool),
    ):
        for ours in subclasses(theirs):
            for name in set(vars(ours)) & {name for each in theirs.__mro__[:-1] for name in vars(each)}:
                if name not in ("__module__", "__doc__", "__qualname__", "__dict__", "__weakref__"):
                    assert name in {entry.partition("(")[0] for entry in LISTED[where].overridden}, f"{ours}.{name}"
                    overriding.add((where, name))
    assert overriding == {(part.where, entry.partition("(")[0]) for part, entry in OVERRIDDEN}, "and nothing else is"
    for theirs in (Job, rq.queue.Queue, rq.executions.Execution):
        for ours in subclasses(theirs):
            names = {name for name in vars(ours) if name not in vars(object) and not name.startswith("__")}
            assert not names & set(dir(theirs)), f"list what {ours} overrides"


def subclasses(theirs: type) -> Iterator[type]:
    for each in theirs.__subclasses__():
        if each.__module__.partition(".")[0] == "rqmem":
            yield each
            yield from subclasses(each)
        elif each.__module__.partition(".")[0] == "rq":
            yield from subclasses(each)


def test_every_name_imported_from_rq_is_listed() -> None:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rq":
                for name in (alias.name for alias in node.names):
                    of_module = listed(LISTED[node.module]) if node.module in LISTED else set()
                    assert name in of_module or f"{node.module}:{name}" in LISTED, f"{path}: {node.module}.{name}"


RECEIVERS: dict[str, type] = {
    **dict.fromkeys(("job", "child", "parent", "rq_job", "Job"), Job),
    **dict.fromkeys(("queue", "target", "Queue", "queue_class"), rq.queue.Queue),
    **dict.fromkeys(("execution", "Execution"), rq.executions.Execution),
    **dict.fromkeys(("worker", "twin", "Worker"), rq.worker.Worker),
    "scheduler": rq.scheduler.RQScheduler,
    "registry": rq.registry.BaseRegistry,
    "result": rq.results.Result,
}
"""The last names of expressions that are objects of RQ, in modules that work with it."""


def class_of(receiver: ast.expr) -> type | None:
    return RECEIVERS.get(ast.unparse(receiver).rpartition(".")[2].lstrip("_"))


@functools.cache
def members(theirs: type) -> set[str]:
    """Names of its attributes and methods, but for those that every object has."""
    names = {name for each in theirs.__mro__[:-1] for name in (*vars(each), *stored(each))}
    return {name for name in names if not name.startswith("__")}


def stored(theirs: type) -> set[str]:
    tree = ast.parse(inspect.getsource(sys.modules[theirs.__module__]))
    return {
        node.attr
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef) and owner.name == theirs.__name__
        for node in ast.walk(owner)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and isinstance(node.ctx, ast.Store)
    }


def works_with_rq(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "rqmem.rq_names" for node in ast.walk(tree))


def test_every_attribute_of_an_object_of_rq_that_we_use_is_listed() -> None:
    of_rq = {theirs: members(theirs) for theirs in set(RECEIVERS.values())}
    of_list = {theirs: listed(part) for part in ALL for theirs in of_rq if part.where.endswith(f":{theirs.__name__}")}
    seen, missing = 0, set()
    for path, tree in trees():
        if not works_with_rq(tree):
            continue
        for node in ast.walk(tree):
            theirs = class_of(node.value) if isinstance(node, ast.Attribute) else None
            if theirs is not None and node.attr in of_rq[theirs]:
                seen += 1
                if node.attr not in of_list[theirs]:
                    missing.add(f"{path}:{node.lineno}: {theirs.__name__}.{node.attr}")
    assert not missing
    assert seen > 300


def test_every_attribute_of_rqs_worker_that_ours_uses_is_listed() -> None:
    for where, theirs in (
        ("rq.worker:Worker", rq.worker.Worker),
        ("rq.scheduler:RQScheduler", rq.scheduler.RQScheduler),
        ("rq.worker_pool:WorkerPool", rq.worker_pool.WorkerPool),
    ):
        for ours in subclasses(theirs):
            for node in ast.walk(ast.parse(inspect.getsource(ours))):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
                    known = node.attr not in members(theirs) or node.attr in listed(LISTED[where])
                    assert known, f"{ours.__name__} uses {theirs.__name__}.{node.attr}"


def test_every_private_name_of_rq_that_we_use_is_listed_and_used_by_workers_only() -> None:
    private: set[str] = set()
    for path in Path(rq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "name", None) or getattr(node, "attr", None)
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                private.add(name)
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in private:
                if ast.unparse(node.value) in ("self", "os", "environ"):  # its own; those of our workers: see above
                    continue
                here = f"{path}:{node.lineno}: {ast.unparse(node)}"
                assert node.attr in EVERY_NAME and path.is_relative_to("rqmem/worker"), here


def test_every_enqueue_option_is_listed() -> None:
    source = inspect.getsource(function_of(rq.queue.Queue, "parse_args"))
    popped = {
        node.args[0].value
        for node in ast.walk(ast.parse(f"class Queue:\n{source}"))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "kwargs.pop"
        and isinstance(node.args[0], ast.Constant)
    }
    assert popped == ENQUEUE_OPTIONS
