"""The training: real workers, real files; killed, split, run again, in every way the same model; bad files told."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Repeat
from rq.job import Job, JobStatus

from jobs.models import load_model, metadata_path, save_model
from jobs.training import TrainMLModelJob
from jobs.training_features import read_row
from jobs.training_figures import figures
from jobs.training_order import CALL_OUTCOMES, Columns, Order
from jobs.training_process import LearnerProcess
from jobs.training_summary import Moments, balanced, make_plan
from rqmem.errors import ConfigError, RqmemError
from rqmem.store import execution_reader, keys
from rqmem.testing import assert_stays_under, wait_until
from seeds.training_rows import COLUMNS, LEARNABLE_F1, OUTCOMES, training_rows
from tests.conftest import StartWorker, WorkOff

LIBRARIES = ("sklearn.feature_extraction", "sklearn.linear_model")
COUNT = 5000
FEATURES = 2**12  # a learner of a MB: each call of it, and each save, is quick
QUICK = {"RQMEM_HEARTBEAT": "0.5"}
MANY_PASSES = 100  # a block and some 20 ms each: time enough to be killed in


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that no test changes."""
    path = tmp_path_factory.mktemp("training") / "rows.csv"
    write_records(path, list(training_rows(3, COUNT)))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder / "outcomes.npz"


def train(rows: Path, model: Path, **options: Any) -> dict[str, Any]:
    """Without a worker, here."""
    told = TrainMLModelJob.run(**{"rows": str(rows), "model": str(model), "features": FEATURES, **options})
    assert told["model"] == str(model)
    return about(model)


def result(job: Job) -> dict[str, Any]:
    """Of a job that has finished."""
    returned = job.return_value()
    assert isinstance(returned, dict), job.get_status()
    return returned


def error_of(job: Job) -> str:
    """Why it failed."""
    latest = job.latest_result()
    assert job.get_status() == JobStatus.FAILED and latest is not None
    return str(latest.exc_string)


def enqueue(connection: Redis, rows: Path, model: Path, **options: Any) -> Job:
    arguments = {"rows": str(rows), "model": str(model), "features": FEATURES, **options}
    return TrainMLModelJob.enqueue(connection=connection, **arguments)


def about(model: Path) -> dict[str, Any]:
    """The JSON beside a model; nothing else lies there."""
    assert sorted(model.parent.iterdir()) == [model, metadata_path(model)]
    read: dict[str, Any] = json.loads(metadata_path(model).read_text())
    return read


def splitting(tmp_path: Path, **settings: Any) -> dict[str, str]:
    """The environment of a worker whose config file says how the training splits."""
    path = tmp_path / "rqmem.ini"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    path.write_text("\n".join(["[job jobs.training.TrainMLModelJob]", *lines]))
    return {**QUICK, "RQMEM_CONFIG": str(path)}


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_records(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# On a worker


def test_a_model_is_trained_judged_and_saved(connection: Redis, work_off: WorkOff, rows: Path, model: Path) -> None:
    job = enqueue(connection, rows, model)
    log = work_off("training", "--memory", "400", "--log-level", "debug")
    told = job.return_value()
    assert told is not None, log
    for checkpoint in ("data_preparation", "training", "model_saving"):
        assert f"at {checkpoint}\n" in log
    assert execution_reader.run(connection, job.id).peak_mb < 400
    read = about(model)
    assert told["balanced_f1"] == read["figures"]["balanced_f1"] >= LEARNABLE_F1
    assert told["rows"]["training"] + told["rows"]["held_out"] == COUNT
    assert read["run"].startswith(job.id) and read["seed"] == Order.seed and read["passes"] == Order.passes
    assert set(read["versions"]) == {"python", "rqmem", "scikit-learn", "numpy", "scipy"}
    assert read["classes"] == sorted(OUTCOMES)


def test_a_loaded_model_says_what_its_figures_say(rows: Path, model: Path) -> None:
    told = train(rows, model)
    order = Order(str(rows), str(model))
    held_out = [record for record in records(rows) if read_row(record, order).held_out]
    loaded = load_model(model)
    said = loaded.predict(held_out)
    pairs = Counter(zip((record["outcome"] for record in held_out), said, strict=True))
    classes = loaded.metadata["classes"]
    assert [[pairs[true, each] for each in classes] for true in classes] == told["figures"]["confusion"]
    assert loaded.predict([]) == []
    unlabelled = {name: value for name, value in held_out[0].items() if name not in ("outcome", "call_id")}
    assert loaded.predict([unlabelled]) == said[:1]
    as_in_a_database = [
        {name: None if value == "" else int(value) if value.isdigit() else value for name, value in record.items()}
        for record in held_out[:50]
    ]
    assert loaded.predict(as_in_a_database) == said[:50]
    with pytest.raises(ConfigError, match="a record has no 'notes'"):
        loaded.predict([{name: "" for name in COLUMNS if name != "notes"}])


def test_split_over_two_workers_it_is_the_same_model(
    connection: Redis, start_worker: StartWorker, tmp_path: Path, rows: Path, model: Path
) -> None:
    alone = train(rows, model)
    environ = splitting(tmp_path, split_above_items=2000, items_per_child=700)
    job = enqueue(connection, rows, model)
    workers = [start_worker("training", "--memory", "400", "--log-level", "error", **environ) for _ in range(2)]
    wait_until(lambda: job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED))
    for worker in workers:
        worker.process.terminate()
        assert worker.finish() == ""
    progress = TrainMLModelJob.progress(job.id, connection)
    assert progress.total is not None and progress.total >= 8
    assert progress.peak_mb < 400
    split = about(model)
    assert split["run"] != alone["run"] and split["sha256"] == alone["sha256"]


@pytest.mark.parametrize("process", [None, "fork"])
def test_killed_anywhere_it_ends_with_one_model_the_same(
    connection: Redis, start_worker: StartWorker, tmp_path: Path, rows: Path, model: Path, process: str | None
) -> None:
    expected = train(rows, model, passes=MANY_PASSES)["sha256"]
    model.unlink()
    metadata_path(model).unlink()
    path = tmp_path / "rqmem.ini"
    path.write_text("[job jobs.training.TrainMLModelJob]\nchunk_size = 50\n")
    environ = {**QUICK, "RQMEM_CONFIG": str(path)}
    job = enqueue(connection, rows, model, passes=MANY_PASSES, process=process)
    for moment in ("*.rows", "learner-*.joblib"):
        worker = start_worker("training", **environ)
        wait_until(lambda: any(model.parent.glob(f"*/{moment}")))  # noqa: B023
        worker.kill()
        assert not model.exists(), "it was over too soon to be killed in the middle"
    last = start_worker("training", **environ)
    wait_until(lambda: job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED))
    last.process.terminate()
    log = last.finish()
    assert job.get_status() == JobStatus.FINISHED, log
    assert about(model)["sha256"] == expected
    run = execution_reader.run(connection, job.id)
    assert run.resumes == 2
    assert run.items[1] == MANY_PASSES, "each block was counted once"


def test_a_training_process_is_metered_as_part_of_the_job(
    connection: Redis, work_off: WorkOff, rows: Path, model: Path, tmp_path: Path
) -> None:
    """Begun anew it imports what the job has imported: by itself each of the two would fit where both do not."""
    peaks_mb: dict[str | None, float] = {}
    for process in (None, "spawn"):
        job = enqueue(connection, rows, model, process=process)
        work_off("training", "--memory", "600")
        result(job)
        peaks_mb[process] = execution_reader.run(connection, job.id).peak_mb
        model.unlink()
    assert peaks_mb["spawn"] > peaks_mb[None] + 30
    config = tmp_path / "rqmem.ini"
    ceiling_mb = round((peaks_mb[None] + peaks_mb["spawn"]) / 2)
    config.write_text(f"[job jobs.training.TrainMLModelJob]\nmemory_limit_mb = {ceiling_mb}\n")
    job = enqueue(connection, rows, model, process="spawn")
    work_off("training", "--memory", "600", RQMEM_CONFIG=str(config), RQMEM_MAX_RESUMES="2")
    assert job.get_status() == JobStatus.FAILED
    assert "MemoryLimitExceeded" in error_of(job)
    assert max(breach.processes for breach in execution_reader.breaches(connection, job.id)) >= 2
    assert not model.exists()


def test_two_at_once_for_one_model_are_in_nobodys_way(
    connection: Redis, start_worker: StartWorker, rows: Path, model: Path
) -> None:
    jobs = [enqueue(connection, rows, model, passes=20) for _ in range(2)]
    workers = [start_worker("training", "--burst", "--log-level", "error") for _ in range(2)]
    assert [worker.finish() for worker in workers] == ["", ""]
    results = [result(job) for job in jobs]
    assert results[0] == results[1]
    assert about(model)["figures"]["balanced_f1"] == results[0]["balanced_f1"]
    assert load_model(model).metadata["passes"] == 20


def test_a_run_that_died_after_it_saved_says_what_it_saved(
    connection: Redis, work_off: WorkOff, rows: Path, model: Path
) -> None:
    saved = train(rows, model)
    job = enqueue(connection, rows, model)
    run = {"job": "jobs.training.TrainMLModelJob", "job_created_at": job.created_at.isoformat(), "run_id": "r1"}
    connection.hset(keys.run(job.id), mapping=run)
    metadata_path(model).write_text(json.dumps({**saved, "run": f"{job.id}, run r1"}))
    left = model.with_name(f"{model.name}.work-{job.id}")
    left.mkdir()
    before = model.stat()
    work_off("training")
    assert result(job)["balanced_f1"] == saved["figures"]["balanced_f1"]
    assert model.stat().st_ino == before.st_ino, "it was not trained again"
    assert not left.exists()


def test_a_training_that_repeats_trains_each_time(
    connection: Redis, work_off: WorkOff, rows: Path, model: Path
) -> None:
    arguments = {"rows": str(rows), "model": str(model), "features": FEATURES, "passes": 1}
    job = TrainMLModelJob.enqueue(connection=connection, repeat=Repeat(times=1), **arguments)
    log = work_off("training", "--log-level", "debug")
    assert log.count("at model_saving\n") == len(job.results()) == 2
    assert about(model)["run"] == f"{job.id}, run {execution_reader.run(connection, job.id).run_id}"


def test_what_a_job_left_that_nobody_knows_is_removed(
    connection: Redis, work_off: WorkOff, tmp_path: Path, rows: Path, model: Path
) -> None:
    known = enqueue(connection, tmp_path / "none.csv", model)
    left = [model.with_name(f"{model.name}.work-{name}") for name in (known.id, "another-redis-s", "forgotten")]
    for path in left:
        path.mkdir()
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (left[0], left[2]):
        os.utime(path, (two_days_ago, two_days_ago))
    enqueue(connection, rows, model)
    work_off("training")
    assert known.get_status() == JobStatus.FAILED
    assert sorted(path for path in model.parent.iterdir() if path.is_dir()) == sorted(left[:2])


# Bad input


Spoil = Callable[[bytes], bytes]


def with_rows(change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> Spoil:
    def spoil(data: bytes) -> bytes:
        text = io.StringIO(newline="")
        found = change(list(csv.DictReader(io.StringIO(data.decode(), newline=""))))
        writer = csv.DictWriter(text, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
        return text.getvalue().encode()

    return spoil


def with_field(**field: str) -> Spoil:
    """The 251st row with another value of a field."""
    return with_rows(lambda found: [*found[:250], found[250] | field, *found[251:300]])


BAD_FILES: dict[str, tuple[Spoil, str]] = {
    "other columns": (
        lambda data: b"id,when\n1,2\n",
        "no column 'call_id' among its columns ('id', 'when'): the first line must name call_id",
    ),
    "a column twice": (
        lambda data: data.replace(b"hour", b"attempts", 1), "two columns are called 'attempts': which one counts?",
    ),
    "encoding": (
        lambda data: data[:20_000] + b"\xff\xfe\n" + data[20_000:], "not utf-8 (invalid start byte): name the encoding",
    ),
    "a line of 50 MB": (
        lambda data: data + b"call-x," + b"12," * (50 * 2**20 // 3) + b"\n",
        "is longer than 1,048,576 bytes: has it lost its line ends?",
    ),
    "a large field": (
        lambda data: data + b"call-x," + b"x" * 2**18 + b"\n", "field larger than field limit (131072)",
    ),
    "one class": (
        with_rows(lambda found: [row | {"outcome": "voicemail"} for row in found[:300]]),
        "300 rows, all with outcome='voicemail': two classes at least are needed",
    ),
    "no rows": (lambda data: data.partition(b"\n")[0] + b"\n", "has no rows: there is nothing to learn from"),
    "empty": (lambda data: b"", "has no rows: there is nothing to learn from"),
    "no number": (
        with_field(attempts="many"), "row call_id='call-000000250': attempts is 'many', which is no number",
    ),
    "not finite": (
        with_field(attempts="1e400"),
        "row call_id='call-000000250': attempts is '1e400': nothing can be learnt from that",
    ),
    "no label": (
        with_field(outcome=" "), "row call_id='call-000000250' has no outcome: leave out rows whose class is not known",
    ),
    "no id": (with_field(call_id=""), "a row has no call_id (country="),
    "too many fields": (
        lambda data: data + b"call-x" + b",1" * 12 + b"\n",
        "row call_id='call-x' has more fields than the header has names",
    ),
    "too few fields": (lambda data: data + b"call-x,DE\n", "row call_id='call-x' ends before its field 'outcome'"),
    "id as label": (
        with_rows(lambda found: [row | {"outcome": row["call_id"]} for row in found]),
        "column 'outcome' has more than 100 different values, so it names no classes",
    ),
    "too few rows": (
        with_rows(lambda found: list({row["outcome"]: row for row in found}.values())[:2]), "2 rows are too few",
    ),
}  # fmt: skip


def test_a_bad_file_is_one_clear_error_and_the_old_model_stays(
    connection: Redis, work_off: WorkOff, tmp_path: Path, rows: Path, model: Path
) -> None:
    model.write_bytes(b"the old one")
    jobs = {}
    for name, (spoil, _) in BAD_FILES.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes(spoil(rows.read_bytes()))
        jobs[name] = enqueue(connection, path, model)
    missing = enqueue(connection, tmp_path / "nowhere.csv", model)
    log = work_off("training", "--memory", "1024")
    for name, (_, line) in BAD_FILES.items():
        [told] = [each for each in log.splitlines() if f"job {jobs[name].id} failed" in each]
        assert "ConfigError: " in told and line in told and name in told
        assert jobs[name].get_status() == JobStatus.FAILED
    assert log.count(f"job {missing.id} failed: ConfigError: {tmp_path}/nowhere.csv does not exist") == 1
    assert "Traceback" not in log
    assert model.read_bytes() == b"the old one"
    assert not metadata_path(model).exists()


def test_a_bad_row_in_a_slice_fails_the_whole_and_says_where(
    connection: Redis, work_off: WorkOff, tmp_path: Path, rows: Path, model: Path
) -> None:
    found = records(rows)
    found[4321]["attempts"] = "many"
    path = write_records(tmp_path / "spoilt.csv", found)
    job = enqueue(connection, path, model)
    log = work_off("training", **splitting(tmp_path, split_above_items=2000, items_per_child=1500))
    assert "row call_id='call-000004321': attempts is 'many'" in error_of(job)
    assert log.count("which is no number") <= 2, "the child says it, and the parent: nobody tries again"
    assert not model.exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"balance": "wieghts"}, "balance is 'wieghts': give one of 'weights'"),
        ({"passes": 0}, "passes is 0: give a whole number from 1 to 10,000"),
        ({"seed": -1}, "seed is -1: give a whole number"),
        ({"process": "thread"}, "process is 'thread': give None"),
        ({"features": 5}, "features is 5: give a whole number from 256"),
        ({"encoding": "utf-99"}, "there is no encoding 'utf-99'"),
        ({"columns": {"id": "call_id"}}, "give an object with id, label and numeric, categorical, text"),
        ({"columns": {"id": "call_id", "label": "outcome"}}, "there is nothing to learn from"),
        ({"columns": {"id": "a", "label": "b", "text": ["b"]}}, "'b' is named twice"),
        ({"columns": {"id": "a", "label": "b", "text": "b"}}, "text is 'b': give a list of names"),
        ({"model": "/nowhere/at/all.npz"}, "there is no directory /nowhere/at: make it"),
    ],
)
def test_what_cannot_be_asked_for_is_said(rows: Path, model: Path, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as error:
        TrainMLModelJob.run(**{"rows": str(rows), "model": str(model), **options})
    assert line in str(error.value)
    assert list(model.parent.iterdir()) == []


def test_a_full_disk_leaves_the_old_model_and_a_retry_finishes(
    connection: Redis, start_worker: StartWorker, rows: Path, model: Path
) -> None:
    old = train(rows, model, passes=1, features=2**16)
    before = model.read_bytes()
    worker = start_worker("training", **QUICK)
    wait_until(lambda: connection.smembers("rq:workers"))
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (3 * 2**20, hard))  # shards fit, the learner does not
    job = enqueue(connection, rows, model, features=2**16)
    wait_until(lambda: job.get_status() == JobStatus.FAILED)
    worker.process.terminate()
    log = worker.finish()
    assert log.count("ConfigError: ") == 1 and "cannot be written: File too large; " in log
    assert "Traceback" not in log
    assert model.read_bytes() == before
    assert json.loads(metadata_path(model).read_text()) == old
    job.requeue()
    start_worker("training", "--burst").finish()
    assert job.get_status() == JobStatus.FINISHED
    assert about(model)["passes"] == Order.passes


def test_of_two_who_save_at_once_model_and_json_are_of_one(
    rows: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import models, work_files

    train(rows, model, passes=1)
    trained = load_model(model)
    folders = {run: model.parent / run for run in ("first", "second")}
    for folder in folders.values():
        folder.mkdir()
    second = threading.Thread(target=save_model, args=(model, trained, "second", "now", folders["second"]))
    named: list[str] = []

    def publish(draft: Path, path: Path) -> None:
        work_files.publish(draft, path)
        named.append(draft.parent.name)
        if named == ["first"]:
            second.start()
            second.join(0.3)  # it would be over in 0.01 s

    monkeypatch.setattr(models, "publish", publish)
    save_model(model, trained, "first", "now", folders["first"])
    second.join()
    assert named == ["first", "first", "second", "second"]
    assert json.loads(metadata_path(model).read_text())["run"] == "second"


@pytest.mark.parametrize("name", ["rows.csv", "rows"])
def test_a_model_is_not_written_over_its_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("rows.csv" if name == "rows.csv" else "rows.json")
    path.write_text("call_id\n")
    with pytest.raises(ConfigError, match="would be written over the rows"):
        TrainMLModelJob.run(rows=str(path), model=str(tmp_path / name))


def test_a_model_is_replaced_whole_or_not_at_all(rows: Path, model: Path) -> None:
    train(rows, model)
    new, before = load_model(model), {path: path.read_bytes() for path in model.parent.iterdir()}
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            save_model(model, new, "another", "now", model.parent)
        except ConfigError as error:
            line = f"{model} cannot be written: File too large; the file that was there is unchanged: make room"
            os._exit(0 if str(error).startswith(line) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {path: path.read_bytes() for path in model.parent.iterdir()} == before


@pytest.mark.parametrize("metadata", [None, "{}", "[1]"])
def test_other_arrays_are_no_model(model: Path, metadata: str | None) -> None:
    import numpy as np

    arrays: dict[str, Any] = {} if metadata is None else {"metadata": np.array(metadata)}
    with model.open("wb") as file:
        np.savez(file, weights=np.zeros(1), intercepts=np.zeros(1), **arrays)
    with pytest.raises(ConfigError, match="is no model"):
        load_model(model)
    with model.open("wb") as file:
        np.save(file, np.zeros(1))
    with pytest.raises(ConfigError, match="is no model"):
        load_model(model)


@pytest.mark.parametrize("spoilt", [b"", b"no zip", b"PK\x03\x04cut off"])
def test_what_is_no_model_is_told(model: Path, spoilt: bytes) -> None:
    with pytest.raises(ConfigError, match="there is no model"):
        load_model(model)
    model.write_bytes(spoilt)
    with pytest.raises(ConfigError, match="is no model"):
        load_model(model)


# The same rows are the same model


def test_neither_order_nor_process_nor_a_second_run_makes_another_model(
    tmp_path: Path, rows: Path, model: Path
) -> None:
    first = train(rows, model)
    for options in ({}, {"process": "fork"}, {"process": "spawn"}):
        assert train(rows, model, **options)["sha256"] == first["sha256"], options
    weights = load_model(model).weights
    turned = sorted(records(rows), key=lambda row: row["outcome"])
    again = train(write_records(tmp_path / "sorted by outcome.csv", turned), model)
    assert (load_model(model).weights == weights).all()
    assert again["figures"] == first["figures"]
    other = train(rows, model, seed=8)
    assert other["sha256"] != first["sha256"]
    assert other["rows"] == first["rows"], "the same rows are held out"


@pytest.mark.parametrize("balance", ["weights", "sample", "none"])
def test_streamed_is_as_good_as_in_memory(rows: Path, model: Path, balance: str) -> None:
    from scripts.load.in_memory import trained_in_memory

    told = train(rows, model, balance=balance)["figures"]
    assert told["balanced_f1"] > 3 * told["always_the_most_frequent"]["balanced_f1"]
    assert told["accuracy"] > told["always_the_most_frequent"]["accuracy"] + 0.1
    if balance != "sample":
        in_memory = trained_in_memory(Order(str(rows), str(model), balance=balance))
        assert told["balanced_f1"] == pytest.approx(in_memory, abs=0.02)


def test_balancing_finds_more_of_the_rare_ones(rows: Path, model: Path) -> None:
    recalls = {
        balance: train(rows, model, balance=balance)["figures"]["classes"]["appointment"]["recall"]
        for balance in ("none", "weights", "sample")
    }
    assert min(recalls["weights"], recalls["sample"]) > recalls["none"]


def test_two_classes_numbers_alone_and_other_columns(tmp_path: Path, model: Path) -> None:
    rng = random.Random(1)
    drawn = [(n, rng.gauss(3 if n % 3 else -3, 2)) for n in range(900)]
    found = [{"no": f"n{n}", "x": f"{x:.4f}", "kind": "up" if n % 3 else "down", "more": "?"} for n, x in drawn]
    path = write_records(tmp_path / "two.csv", found)
    told = train(path, model, columns={"id": "no", "label": "kind", "numeric": ["x"]})
    assert told["figures"]["balanced_f1"] > 0.85
    loaded = load_model(model)
    assert loaded.predict([{"x": "7"}, {"x": "-7"}]) == ["up", "down"]
    assert len(loaded.weights) == 1


def test_memory_does_not_grow_with_the_file(tmp_path: Path, rows: Path, model: Path) -> None:
    train(rows, model)  # imports
    large = tmp_path / "large.csv"
    write_records(large, list(training_rows(4, 20_000)))
    with assert_stays_under(60):  # all of it as dicts takes 40 MB, hashed 20, and learnt as one block as much again
        train(large, model, passes=1)


def test_rows_of_long_texts_are_not_all_words_at_once(tmp_path: Path) -> None:
    from jobs.training_shards import write_shard

    order = Order("a.csv", "a.npz", Columns("no", "kind", text=("notes",)))
    words = " ".join(f"w{n}" for n in range(4000))
    found = [{"no": str(n), "kind": "ab"[n % 2], "notes": words} for n in range(200)]
    with assert_stays_under(80):  # 800,000 words, hashed 10 MB, written and sorted; as texts 150 MB
        shard = write_shard(found, order, tmp_path)
    assert 0.9 < shard.nonzeros / (4000 * sum(shard.training.values())) <= 1


def test_blocks_are_as_large_as_memory_allows_also_where_rows_have_many_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import training_shards

    names = [f"x{n}" for n in range(40)]
    order = Order("a.csv", "a.npz", Columns("no", "kind", numeric=tuple(names)))
    found = [{"no": str(n), "kind": "ab"[n % 2], **dict.fromkeys(names, "1")} for n in range(500)]
    shard = training_shards.write_shard(found, order, tmp_path)
    training = sum(shard.training.values())
    monkeypatch.setattr("jobs.training_summary.BLOCK_NONZEROS", 1000)
    monkeypatch.setattr(training_shards, "BLOCK_NONZEROS", 1000)
    assert shard.nonzeros == 0, "none of a number that is there is hashed"
    assert make_plan(order, [shard]).blocks == math.ceil(training * 40 / 1000)
    pieces = list(training_shards.open_shard(shard.path).training.pieces())
    assert {len(piece) for piece in pieces[:-1]} == {25}
    assert sum(map(len, pieces)) == training


def test_an_id_that_many_rows_have_is_told_before_they_are_all_in_memory(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"country": "ABCDEFG"[n % 7], "kind": "ab"[n // 7 % 2], "x": str(n)} for n in range(7000)]
    path = write_records(tmp_path / "rows.csv", found)
    monkeypatch.setattr("jobs.training_summary.BLOCK_ROWS", 20)
    with pytest.raises(ConfigError, match=r"rows.csv: column 'country' does not tell the rows apart"):
        train(path, model, columns={"id": "country", "label": "kind", "numeric": ["x"]}, process="fork")
    assert not model.exists()


def test_a_training_process_that_dies_is_told_and_what_it_saved_is_used(
    tmp_path: Path, rows: Path, model: Path
) -> None:
    from jobs.training_learner import Learner
    from jobs.training_shards import write_shard

    order = Order(str(rows), str(model), passes=12)
    shards = [write_shard(records(rows)[:2000], order, tmp_path), write_shard(records(rows)[2000:], order, tmp_path)]
    plan = make_plan(order, shards)
    whole = Learner(plan, tmp_path)
    whole.learn_to(12)
    for state in tmp_path.glob("learner-*"):
        state.unlink()
    with LearnerProcess(plan, tmp_path, "fork") as process:
        process.learn_to(7)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(RqmemError, match="the training process ended with code -9 in learn_to"):
            process.learn_to(12)
    after = Learner(plan, tmp_path)
    assert after.done == 5, "saved every fifth block"
    after.learn_to(12)
    assert all((one == other).all() for one, other in zip(whole.weights(), after.weights(), strict=True))
    shutil.rmtree(tmp_path / shards[0].path, ignore_errors=True)
    Path(shards[0].path).unlink()
    with pytest.raises(ConfigError, match="these prepared rows are gone"):
        Learner(plan, tmp_path).confusion()


# The parts

numbers = st.floats(-1e100, 1e100) | st.just(float("nan"))


@given(st.lists(numbers), st.integers(0, 20))
def test_moments_are_exact_however_rows_are_cut(values: list[float], cut: int) -> None:
    from fractions import Fraction

    whole = Moments.of(values)
    assert Moments.of(values[cut:]) + Moments.of(values[:cut]) == whole
    assert Moments.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    there = [Fraction(value) for value in values if value == value]
    assert whole.count == len(there)
    assert whole.total == sum(there) and whole.squares == sum(value**2 for value in there)
    assert whole.deviation > 0


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n)))  # fmt: skip  # noqa: E501
def test_figures_are_those_of_scikit_learn(confusion: list[list[int]]) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    pairs = [(t, s) for t, row in enumerate(confusion) for s, count in enumerate(row) for _ in range(count)]
    if not pairs:
        return
    true, said = zip(*pairs, strict=True)
    told = figures(confusion, [str(n) for n in range(len(confusion))])
    labels = list(range(len(confusion)))
    assert told["accuracy"] == pytest.approx(accuracy_score(true, said))
    expected = f1_score(true, said, labels=labels, average="macro", zero_division=0)
    assert told["balanced_f1"] == pytest.approx(expected)
    most = max(labels, key=lambda label: sum(confusion[label]))
    always = f1_score(true, [most] * len(true), labels=labels, average="macro", zero_division=0)
    assert told["always_the_most_frequent"]["balanced_f1"] == pytest.approx(always)


def test_weights_and_rates() -> None:
    assert balanced([60, 30, 10], "weights") == ((100 / 180, 100 / 90, 100 / 30), (1, 1, 1))
    assert balanced([60, 30, 10], "sample") == ((1, 1, 1), (10 / 60, 10 / 30, 1))
    assert balanced([60, 0, 10], "weights")[0] == (70 / 120, 0, 70 / 20)
    assert balanced([60, 30], "none") == ((1, 1), (1, 1))


def test_columns_are_those_of_the_seeds() -> None:
    assert sorted(CALL_OUTCOMES.names) == sorted(COLUMNS)
    assert Columns.of(json.loads(json.dumps(Order("a", "b").to_json()))["columns"]) == CALL_OUTCOMES


def test_a_row_is_the_same_on_every_machine() -> None:
    assert next(training_rows(7, 1)) == {
        "call_id": "call-000000000", "country": "US", "language": "en", "product": "plus", "weekday": "Fri",
        "hour": "20", "attempts": "4", "days_since_contact": "139", "contract_months": "15", "monthly_fee": "33.06",
        "notes": "rang out", "outcome": "no_answer",
    }  # fmt: skip


def test_classes_are_unbalanced_and_every_column_is_mixed() -> None:
    found = list(training_rows(1, 5000))
    counts = Counter(row["outcome"] for row in found)
    assert set(counts) == set(OUTCOMES)
    assert counts["no_answer"] > 10 * counts["appointment"]
    assert sum(outcome.share for outcome in OUTCOMES.values()) == 1000
    for column in COLUMNS[1:]:
        assert len({row[column] for row in found}) >= 5
    assert any("\n" in row["notes"] or "," in row["notes"] for row in found)
