"""Commands as people type them: help, options, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.cli import main
from tests import forked, sample_jobs
from tests.conftest import ROOT, StartWorker, WorkOff


def rqmem(*arguments: str, directory: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return forked.run_module("rqmem", *arguments, directory=directory, **{"COLUMNS": "80", **environ})


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found, context = [path], click.Context(group)
    for name in group.list_commands(context):
        inner, command = (*path, name), group.get_command(context, name)
        found += every_command(command, inner) if isinstance(command, click.Group) else [inner]
    return found


@pytest.mark.parametrize("command", every_command(main), ids=" ".join)
def test_help_reads_well_at_80_columns(command: tuple[str, ...]) -> None:
    done = rqmem(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: rqmem {' '.join(command)}".rstrip())
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_the_list_of_commands_imports_none_of_them() -> None:
    program = (
        "import sys, rqmem.cli\n"
        "try: rqmem.cli.main(['--help'])\n"
        "finally: print([name for name in sys.modules if name.startswith(('rqmem.cli.', 'rqmem.worker'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert all(f"  {name} " in done.stdout for name in main.list_commands(click.Context(main)))
    assert done.stdout.splitlines()[-1] == "[]"


COMPLETION = (ROOT / "docs" / "watching.md").read_text().partition("Completion in your shell")[2].partition("##")[0]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("st",), ["status"]),
        (("worker", "--mem"), ["--memory"]),
        (("redis", ""), ["start", "status", "stop", "url"]),
        (("report", "--format", ""), ["text", "json", "html"]),
    ],
)
def test_bash_completes_after_the_line_of_the_docs(words: tuple[str, ...], completed: list[str]) -> None:
    [line] = re.findall(r"\| bash \| .* \| `(.*)` \|", COMPLETION)
    typed = " ".join(shlex.quote(word) for word in words)
    program = (
        f'{line}\nCOMP_WORDS=(rqmem {typed}) COMP_CWORD={len(words)}\n_rqmem_completion rqmem\necho "${{COMPREPLY[@]}}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", program], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_a_script_of_theirs(shell: str) -> None:
    assert f"_RQMEM_COMPLETE={shell}_source rqmem" in COMPLETION
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["rqmem"],
        env={**os.environ, "PATH": path, "_RQMEM_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "_rqmem_completion" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frobnicate"], "No such option '--frobnicate'"),
        (["--memory", "0"], "--memory='0': give a number of MB greater than 0"),
        (["--memory", "abc"], "--memory='abc': give a number of MB greater than 0"),
        (["--memory", "-5"], "--memory='-5': give a number of MB greater than 0"),
        (["--memory", "5"], "a ceiling of 5 MB cannot hold: an idle horse already uses "),
        (["--reserve", "-1"], "--reserve='-1': give a number of MB of at least 0"),
        (["--worker-memory", "5"], "a ceiling of 5 MB for the worker itself cannot hold: it starts with "),
        (["--cgroup", "maybe"], "--cgroup='maybe': give auto (use one where it can be had) or off (never) or require"),
        (["--on-worker-limit", "die"], "--on-worker-limit='die': give restart (restart in place) or exit"),
        (["--isolation", "none"], "--isolation='none': give warm (a horse runs many jobs) or fork"),
        (["--queue", ""], "queue name '' is empty"),
        (["  "], "queue name '  ' is empty"),
        (["--timeout", "soon"], "--timeout='soon': give whole seconds, at least 1"),
        (["--max-jobs", "0"], "--max-jobs='0': give a whole number of at least 1"),
        (["--url", "http://localhost"], "--url 'http://localhost' cannot be used"),
        (["--exception-handler", "no.such.handler"], "--exception-handler 'no.such.handler' cannot be imported"),
        (["--job-class", "no.such.Job"], "--job-class 'no.such.Job' cannot be imported"),
        (["--job-class", "rq.Queue"], "--job-class 'rq.Queue' is no subclass of rq.Job"),
        (["--queue-class", "os.path"], "--queue-class 'os.path' is no subclass of rq.Queue"),
        (["--job-class", "tests.broken_module.Job"], "cannot be imported: RuntimeError: "),
        (["--serializer", "no.such"], "--serializer 'no.such' cannot be imported: there is no module no: "),
        (["--serializer", "../.."], "--serializer '../..' cannot be imported: give a path as in module.name"),
        (["--queue", "\udce9"], r"'\udce9' is no text in UTF-8"),
        (["--name", "\udce9"], r"'\udce9' is no text in UTF-8"),
        (["--pid", "/nowhere/pid"], "--pid /nowhere/pid: No such file or directory; give a file that can be written"),
        (["--path", ""], "--path='' is not there: give the directory of the code"),
        (["--path", "/nowhere"], "--path='/nowhere' is not there: give the directory of the code"),
        (["--queue", "--memory", "64"], "--queue needs a value, and '--memory' is an option of its own"),
        (["--log-format", "xml"], "--log-format 'xml': give text, json, or a format with %(message)s in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_exit_code_2(start_worker: StartWorker, options: list[str], message: str) -> None:
    worker = start_worker("--burst", *options)
    [line] = worker.finish().splitlines()
    assert line.startswith("rqmem: ")
    assert message in line
    assert worker.process.returncode == 2


def test_a_misspelt_variable_is_bad_usage_too(start_worker: StartWorker) -> None:
    worker = start_worker("--burst", RQMEM_MEMROY="64")
    assert worker.finish() == "rqmem: environment variable RQMEM_MEMROY is not known: did you mean RQMEM_MEMORY?\n"
    assert worker.process.returncode == 2


@pytest.mark.parametrize(("variable", "option"), [("RQ_JOB_CLASS", "--job-class"), ("RQ_QUEUE_CLASS", "--queue-class")])
def test_classes_that_rq_worker_reads_from_the_environment(
    start_worker: StartWorker, variable: str, option: str
) -> None:
    worker = start_worker("--burst", **{variable: "no.such.Class"})
    assert f"{option} 'no.such.Class' cannot be imported" in worker.finish()


def test_a_redis_that_does_not_answer_is_exit_code_1(start_worker: StartWorker) -> None:
    worker = start_worker("--burst", "--url", "redis://127.0.0.1:1/0")
    [line] = worker.finish().splitlines()
    assert "redis://127.0.0.1:1/0" in line
    assert worker.process.returncode == 1


def test_a_suspended_redis_is_said(connection: Redis, start_worker: StartWorker) -> None:
    connection.set("rq:suspended", 1)
    worker = start_worker("--burst")
    assert "RQ is suspended on this Redis" in worker.finish()
    assert worker.process.returncode == 1


@pytest.mark.parametrize("command", ["worker jobs", "pool jobs", "enqueue builtins.print", "config"])
def test_a_directory_that_was_deleted_is_bad_usage(tmp_path: Path, command: str) -> None:
    script = f"cd {tmp_path} && rmdir {tmp_path} && exec {sys.executable} -m rqmem {command}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: the current directory no longer exists; change to your project's directory")


def test_a_command_that_is_misspelt_is_named() -> None:
    done = rqmem("wroker")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rqmem: No such command 'wroker': did you mean worker? (see 'rqmem --help')\n"


@pytest.mark.parametrize(
    "path",
    ["no.such.module.work", "tests.sample_jobs.no_such_function", "tests.broken_module.f", "tests.quits_at_import.f"],
)
def test_a_job_path_that_cannot_be_imported_is_one_line_and_the_job_is_kept(
    connection: Redis, start_worker: StartWorker, path: str
) -> None:
    job = Queue("jobs", connection=connection).enqueue(path)
    worker = start_worker("jobs", "--burst")
    log = worker.finish()
    assert worker.process.returncode == 0
    assert f"JobNotImportable: job path '{path}' cannot be imported: " in log
    assert "Traceback" not in log
    assert job.get_status() == JobStatus.FAILED
    assert job.id in job.failed_job_registry


def test_queues_by_argument_and_by_option(connection: Redis, start_worker: StartWorker) -> None:
    jobs = [Queue(name, connection=connection).enqueue(sample_jobs.add, 1) for name in ("one", "two", "three")]
    start_worker("one", "--queue", "two", "--queue", "three", "--burst").finish()
    assert [job.return_value() for job in jobs] == [2, 2, 2]


def test_max_jobs(connection: Redis, start_worker: StartWorker) -> None:
    queue = Queue("jobs", connection=connection)
    for _ in range(3):
        queue.enqueue(sample_jobs.add, 1)
    start_worker("jobs", "--max-jobs", "2").finish()
    assert queue.count == 1


def test_with_scheduler_due_jobs_are_run(connection: Redis, start_worker: StartWorker) -> None:
    from datetime import timedelta

    job = sample_jobs.Plain.enqueue_in(timedelta(0), number=1, connection=connection)
    start_worker("plain", "--with-scheduler", "--burst").finish()
    assert job.get_status() == JobStatus.FINISHED


def test_json_log_is_json_on_every_line(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Squares.enqueue("jobs", count=16, item_mb=20, connection=connection)
    output = start_worker("jobs", "--burst", "--memory", "128", "--log-format", "json").finish()
    lines = [json.loads(line) for line in output.splitlines()]
    assert {line["event"] for line in lines if "event" in line} >= {"Breach", "RunEnded"}
    [first, *_] = [line for line in lines if "operation" in line and "event" not in line]
    assert list(first)[:7] == [
        "job", "operation", "current_memory_mb", "peak_memory_mb", "memory_limit_mb", "usage_percentage", "timestamp",
    ]  # fmt: skip
    assert first["job"] == "tests.sample_jobs.Squares"
    assert first["job_id"] == job.id


def test_one_line_says_that_the_embedded_server_is_used(tmp_path: Path) -> None:
    environ = {"RQMEM_REDIS_URL": "", "REDIS_URL": "", "XDG_RUNTIME_DIR": str(tmp_path)}
    try:
        done = rqmem("worker", "--burst", directory=tmp_path, **environ)
        assert done.returncode == 0
        assert done.stderr.splitlines()[0].startswith("rqmem: using the embedded Redis ")
        assert (tmp_path / ".rqmem" / "redis").is_dir()
        assert (tmp_path / ".rqmem" / ".gitignore").read_text() == "*\n"
        assert rqmem("redis", "url", directory=tmp_path, **environ).stdout.startswith("unix://")
    finally:
        assert rqmem("redis", "stop", directory=tmp_path, **environ).returncode == 0


def test_a_full_disk_is_one_line_and_a_closed_output_is_nobody() -> None:
    command, environ = [sys.executable, "-m", "rqmem", "config"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "rqmem: the output could not be written: No space left on device; what is there is not whole\n"
    )
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, env=environ, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_argument_that_is_no_text_is_one_line(redis_url: str) -> None:
    done = rqmem("inspect", "1f\udcff", "--url", redis_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rqmem: '1f\\udcff' is no text in UTF-8, as all names are: surrogates not allowed\n"


def test_a_terminal_without_a_letter_shows_a_question_mark(redis_url: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    for command in ("pause", "resume"):
        run = [sys.executable, "-m", "rqmem", command, "日本", "--url", redis_url]
        done = subprocess.run(run, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "queue ?? " in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["x=", "a b", "%s{0}", "x" * 300])
def test_a_worker_bears_any_name(work_off: WorkOff, name: str) -> None:
    assert f"worker {name}: memory ceiling" in work_off("mail", "--name", name)
