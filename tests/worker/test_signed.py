"""Jobs whose data are signed: `rqmem.serializers`."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry

from rqmem.errors import ConfigError, SignatureError
from rqmem.serializers import Signed, SignedJSON
from rqmem.signatures import HEAD, SIGNATURE_BYTES, unsigned
from rqmem.type_of_job import job_type
from tests.conftest import ROOT, StartWorker
from tests.forked import run

KEY, OTHER_KEY = "k" * 32, "o" * 32
SERIALIZER = "rqmem.serializers.Signed"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQMEM_SIGNING_KEY", KEY)


class Touches:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_was_written_is_read(value: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RQMEM_SIGNING_KEY", KEY)
        for serializer in (Signed, SignedJSON):
            assert serializer.loads(serializer.dumps(value)) == value


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_byte_can_be_changed(position: int, change: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RQMEM_SIGNING_KEY", KEY)
        data = bytearray(Signed.dumps(("jobs.mail.send", None, ("ada",), {})))
        data[position % len(data)] ^= change
        with pytest.raises(SignatureError):
            Signed.loads(bytes(data))


@pytest.mark.parametrize("size", [0, 1, len(HEAD), len(HEAD) + SIGNATURE_BYTES - 1, len(HEAD) + SIGNATURE_BYTES])
def test_data_cut_short_are_refused(size: int) -> None:
    with pytest.raises(SignatureError):
        Signed.loads(Signed.dumps("text")[:size])


def test_nothing_unsigned_or_signed_by_others_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = Touches(tmp_path / "touched")
    with pytest.raises(SignatureError, match="are not signed"):
        Signed.loads(pickle.dumps(evil))
    monkeypatch.setenv("RQMEM_SIGNING_KEY", OTHER_KEY)
    data = Signed.dumps(evil)
    monkeypatch.setenv("RQMEM_SIGNING_KEY", KEY)
    with pytest.raises(SignatureError, match="none of the 1 keys"):
        Signed.loads(data)
    with pytest.raises(SignatureError):
        Signed.loads(SignedJSON.dumps("text"))  # what one class signs, the other does not read
    assert not evil.path.exists()


def test_keys_can_be_changed_while_jobs_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Signed.dumps("waits")
    monkeypatch.setenv("RQMEM_SIGNING_KEY", f"{OTHER_KEY} {KEY}")
    assert Signed.loads(old) == "waits"
    new = Signed.dumps("new")
    monkeypatch.setenv("RQMEM_SIGNING_KEY", OTHER_KEY)
    assert Signed.loads(new) == "new"
    monkeypatch.delenv("RQMEM_SIGNING_KEY")
    (tmp_path / "keys").write_text(f"{KEY}\n{OTHER_KEY}\n")
    monkeypatch.setenv("RQMEM_SIGNING_KEY_FILE", str(tmp_path / "keys"))
    assert Signed.loads(old) == "waits" and Signed.loads(new) == "new"


def test_a_key_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQMEM_SIGNING_KEY", f"{KEY} short-secret")
    with pytest.raises(ConfigError, match="signing key 2 is too short") as caught:
        Signed.dumps(1)
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("RQMEM_SIGNING_KEY")
    monkeypatch.setenv("RQMEM_SIGNING_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Signed.dumps(1)
    monkeypatch.delenv("RQMEM_SIGNING_KEY_FILE")
    with pytest.raises(ConfigError, match="there is no key"):
        Signed.loads(b"")


@pytest.mark.parametrize("serializer", [Signed, SignedJSON])
def test_the_type_of_a_signed_job_is_known_without_its_key(
    connection: Redis, serializer: type[Signed], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Queue("q", connection=connection, serializer=serializer).enqueue("jobs.mail.send", 7)
    monkeypatch.delenv("RQMEM_SIGNING_KEY")
    assert job_type(Job.fetch(job.id, connection=connection, serializer=serializer)) == "jobs.mail.send"
    assert unsigned(b"anything") is None


def test_a_worker_runs_signed_jobs_and_refuses_others(
    connection: Redis, tmp_path: Path, start_worker: StartWorker
) -> None:
    (tmp_path / "mail.py").write_text("def send(to):\n    return f'sent to {to}'\n")
    signed = Queue("mail", connection=connection, serializer=SERIALIZER)
    good = signed.enqueue("mail.send", "ada")
    evil = Touches(tmp_path / "touched")
    bad = Queue("mail", connection=connection).enqueue("mail.send", evil)
    last = signed.enqueue("mail.send", "bob")
    log = start_worker("mail", "--burst", "-S", SERIALIZER, directory=tmp_path, RQMEM_SIGNING_KEY=KEY).finish()
    assert good.return_value() == "sent to ada" and last.return_value() == "sent to bob", log
    assert not evil.path.exists()
    assert bad.get_status() == JobStatus.FAILED
    assert bad.id in FailedJobRegistry("mail", connection=connection)
    assert "SignatureError: these data are not signed" in (bad.latest_result().exc_string or "")
    assert "SignatureError: these data are not signed" in log


def test_a_signed_job_splits_and_gathers(connection: Redis, tmp_path: Path, start_worker: StartWorker) -> None:
    (tmp_path / "squares.py").write_text(
        "from rqmem import MemoryAwareJob\n\n\nclass Squares(MemoryAwareJob):\n    queue = 'squares'\n\n"
        "    def handle(self, items=None):\n        if items is None:\n"
        "            return self.split_into_child_jobs(range(30), items_per_child=10)\n"
        "        return sum(sum(chunk) for chunk in self.chunks(items))\n\n"
        "    def gather(self, results):\n        return sum(results)\n"
    )
    job = Queue("squares", connection=connection, serializer=SERIALIZER).enqueue("squares.Squares.run")
    log = start_worker("squares", "--burst", "-S", SERIALIZER, directory=tmp_path, RQMEM_SIGNING_KEY=KEY).finish()
    assert job.return_value() == sum(range(30)), log


def test_a_worker_without_a_key_does_not_start(redis_url: str, tmp_path: Path) -> None:
    done = run(
        [sys.executable, "-m", "rqmem", "worker", "mail", "--burst", "-S", SERIALIZER],
        env={"RQMEM_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT), "PATH": ""}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "there is no key to sign jobs with" in done.stderr and "Traceback" not in done.stderr
