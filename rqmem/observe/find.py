"""Which job is meant: by its id, by the beginning of one (log lines show eight characters), or by neither."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from redis import Redis

from rqmem.child_ids import short_id, top_of
from rqmem.errors import UnknownName
from rqmem.observe.model import STATES, Found
from rqmem.rq_names import Job
from rqmem.store import execution_reader, keys
from rqmem.store.history import history_reader
from rqmem.store.queue_waits import queues_of
from rqmem.store.unreadable import readable
from rqmem.text import did_you_mean, listed

_RECENT = 500  # of each queue and registry, where an id is looked for
_NAMED = 3  # ids in an error message


def find(connection: Redis, text: str) -> str:
    """The id of the job that ``text`` names. Raises `UnknownName`, naming near ones, for none and for several."""
    if not text.strip():
        raise UnknownName("an empty job id names no job: 'rqmem status' shows those that run now")
    if Job.exists(text, connection):
        return text
    known = _known(connection)
    found = named(text, known)
    if found is None:
        known.update(_of_runs(connection, text))
        found = named(text, known)
    if found is None:
        raise UnknownName(f"no job {text!r}: {_hint(text, known)}")
    return found


def is_known(connection: Redis, job_id: str) -> bool:
    """Whether RQ, rqmem's records of runs, or a story has this very id. Reads no run of a job type."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.exists(Job.key_for(job_id))
        pipeline.exists(keys.run(job_id), keys.story(job_id))
        pipeline.hexists(keys.RUNNING, job_id)
        return any(pipeline.execute())


def search(connection: Redis, text: str, limit: int = 20) -> Found:
    """What somebody means who typed this into a search box: an id, the beginning of one, or a part of a type's path.

    Of a job that has split, the job is found and not its children, unless the text goes on after its id.
    """
    text = text.strip()
    if not text:
        return Found(text)
    types = sorted(name for name in history_reader.types(connection) if text.lower() in name.lower())
    if is_known(connection, text):
        ids = [text]
    else:
        begun = {job_id for job_id in _known(connection) if job_id.startswith(text) or short_id(job_id) == text}
        parents = {top_of(job_id) for job_id in begun}
        ids = sorted({parent for parent in parents if parent.startswith(text)} or begun)
    more = len(ids) > limit or len(types) > limit
    return Found(text, tuple(ids[:limit]), tuple(types[:limit]), more)


def named(text: str, known: Collection[str]) -> str | None:
    """The one of ``known`` that ``text`` is, begins, or is as log lines show it; None: there is none.

    The beginning of a job that has split begins its children too, and means that job.

    Raises:
        UnknownName: it is the beginning of several.
    """
    if text in known:
        return text
    shown = [job_id for job_id in known if short_id(job_id) == text]
    found = shown if len(shown) == 1 else sorted(job_id for job_id in known if job_id.startswith(text))
    parents = {top_of(job_id) for job_id in found}
    if len(found) > 1 and len(parents) == 1 and (parent := parents.pop()).startswith(text):
        return parent
    if len(found) > 1:
        raise UnknownName(
            f"{text!r} is the beginning of {len(found)} job ids: give more of it: {listed(found, _NAMED)}"
        )
    return found[0] if found else None


def _hint(text: str, known: Collection[str]) -> str:
    if near := did_you_mean(text, known, most=_NAMED):
        return near
    if not known:
        return "neither RQ nor the journal on this Redis has any job; is it the right --url?"
    return "RQ has none of that id, or has forgotten it, and the journal has none either; is it the right --url?"


def _known(connection: Redis) -> set[str]:
    """Ids of jobs that have a story, and of those that wait, run, or ended lately."""
    ids = {*history_reader.stories(connection), *execution_reader.owners(connection)}
    for queue in queues_of(connection):
        reads: list[Callable[[], list[str]]] = [partial(queue.get_job_ids, 0, _RECENT)]
        for state in STATES[1:]:
            registry = getattr(queue, f"{state}_job_registry")
            # Without RQ's clean-up, which writes.
            reads.append(partial(registry.get_job_ids, 0, _RECENT - 1, desc=True, cleanup=False))
        ids.update(*readable(lambda read: read(), reads, queue.key))
    return ids


def _of_runs(connection: Redis, text: str) -> set[str]:
    """Ids with this text among the last runs of all job types: of functions, whose jobs have no story."""
    of_types = history_reader.runs_with(connection, history_reader.types(connection), text)
    return {run.job_id for run in of_types if text in run.job_id}
