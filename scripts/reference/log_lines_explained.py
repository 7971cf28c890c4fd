"""What each warning and error in the log means, and what to do about it. `scripts.reference.log_lines` checks it."""

from __future__ import annotations

from dataclasses import dataclass

JOBS, AFTER = "A job's memory", "What became of a job"
WORKERS, POOL = "Workers, horses and their settings", "The pool of workers"
REDIS, JOURNAL, ALERTS = "Redis", "The journal and metrics", "Alerts"
HOOKS, MACHINE = "Hooks and libraries", "The machine, other users and cgroups"

TOPICS = (JOBS, AFTER, WORKERS, POOL, REDIS, JOURNAL, ALERTS, HOOKS, MACHINE)


@dataclass(frozen=True)
class Explained:
    """A line. ``shown``: examples, where the format of the line says too little."""

    topic: str
    means: str
    do: str
    shown: tuple[str, ...] = ()


EVENTS: dict[str, Explained] = {
    "Breach": Explained(
        JOBS,
        "The job used more than its ceiling and was stopped. The lines below it say where its memory grew, and what "
        "became of the job.",
        "`rqmem inspect JOB_ID` shows it again later. Use less memory, work in chunks that resume, or "
        "declare a higher ceiling: `rqmem recommend` says how much.",
    ),
    "UsageWarning": Explained(
        JOBS,
        "The job used more than 80 % of its ceiling (`MEMORY_WARNING_THRESHOLD`). Garbage is collected.",
        "Nothing, if the job ends well. Else a smaller `chunk_size` or a higher ceiling.",
    ),
    "CeilingCut": Explained(
        JOBS,
        "The job's class declares more than the worker's `--memory`. The worker's ceiling holds.",
        "Start the worker with a higher `--memory`, or put the job on a queue of a larger worker.",
    ),
    "LeakFound": Explained(
        JOBS,
        "Runs of this job type leave more and more memory behind. The horse is replaced, so the leak does not add up.",
        "Look for what outlives a run: a global list, a cache without bound. The line names the types of objects.",
    ),
    "RunsAgain": Explained(
        JOBS,
        "The job reached its ceiling only because earlier jobs had left memory in its horse. It runs once more in a "
        "new horse. No retry is spent.",
        "If the job must never begin twice, use `--isolation fork`. Else find the job type that leaves so much: "
        "`rqmem report`.",
    ),
    "WorkerFull": Explained(
        WORKERS,
        "The worker's own process uses more than `--worker-memory`. It restarts between two jobs, or ends with exit "
        "code 12 (`--on-worker-limit exit`).",
        "If it happens often: raise `--worker-memory`, or preload less.",
    ),
    "WorkerRestarted": Explained(
        WORKERS, "The worker restarted in place, because it had been above its own ceiling.", "Nothing."
    ),
    "IntakePaused": Explained(
        WORKERS,
        "A pool starts no jobs: less than 5 % of the memory is left, or processes wait for memory more than a tenth of "
        "the time. Jobs that run go on.",
        "See what else uses memory on that machine (`rqmem status`). The pool takes jobs again by itself.",
    ),
    "Evicted": Explained(
        AFTER,
        "The jobs of a pool used more than its budget, or nothing was left of the machine's memory, so this job had to "
        "go. A job that can continue saves what it has and waits for room; with a Retry left RQ runs it again; any "
        "other one fails with `JobEvicted`.",
        'If it happens often: give `--total-memory` more, or declare `on_breach = "resume"` and work in chunks.',
    ),
    "WorkerLost": Explained(
        AFTER,
        "The worker that ran this job has not been heard of. This worker takes the job over: it goes on, is retried, "
        "or fails, as RQ does with abandoned jobs.",
        "See why the other worker died: its log, `dmesg`, `kubectl describe pod`.",
    ),
    "Resumed": Explained(
        AFTER,
        "The run ended early and the job goes on after its last finished chunk. The end of the line says why.",
        "Nothing. `rqmem inspect JOB_ID` shows all its runs.",
    ),
    "Escalated": Explained(
        AFTER,
        "The job breached and goes on under its next, higher ceiling.",
        "Nothing. [Again with more memory](escalation.md) explains it.",
    ),
    "GaveUp": Explained(
        AFTER,
        "The job fails, because it may not be resumed or its budget of resumes is spent (`RQMEM_MAX_RESUMES`).",
        "See the breach above it. Mend the cause, then `rqmem retry JOB_ID`: it goes on from its last chunk.",
    ),
    "HookFailed": Explained(
        HOOKS, "A hook of yours raised, hung or left. The other hooks and the job went on.", "Mend the hook."
    ),
    "AlertRaised": Explained(
        ALERTS,
        "An alert was raised. It is also sent to your alert URLs.",
        "[Alerts](alerts.md) says what each rule means.",
    ),
}  # fmt: skip
"""Kind of event -> what its line means."""

LINES: dict[str, Explained] = {
    "%s is not split: %s": Explained(
        JOBS,
        "The job asked whether to split, and runs where nobody can wait for children: on a stock `rq worker`, or by a "
        "direct call. It does all the work itself.",
        "Run it with `rqmem worker`.",
    ),
    "memory is read by psutil here, which is less exact: %s": Explained(
        MACHINE, "This system is not Linux, or `/proc` cannot be read. Only checkpoints read memory.", "Use Linux.",
    ),
    "memory cannot be read here, so checkpoints keep no ceiling: %s, and psutil reads nothing": Explained(
        MACHINE, "Nobody can read memory here, so no ceiling holds.", "Use Linux, with `/proc` mounted."
    ),
    "%s": Explained(
        AFTER,
        "The job failed with one of rqmem's own errors. The line says what to do.",
        "See [Why a horse died](#why-a-horse-died) for the lines about a work-horse.",
        (
            "Worker ...: job ... failed: rqmem.errors....: ...",
        ),
    ),
    "job %s of lost worker %s is left to RQ's maintenance": Explained(
        AFTER,
        "This worker tried several times to settle a job of a dead worker, and could not.",
        "See the error above it. RQ fails the job in its next clean-up. Then `rqmem retry JOB_ID`.",
    ),
    "worker %s: settling what a dead worker left was cut short": Explained(
        AFTER,
        "An error, often in a failure callback of yours, ended the process that settles jobs of a dead worker. It is "
        "tried again.",
        "Mend what the traceback shows.",
    ),
    "worker %s: the verdict on job %s was cut short": Explained(
        AFTER,
        "An error ended the process that records the failure of a killed job, often in a failure callback.",
        "Mend what the traceback shows.",
    ),
    "job %s does not go on here: somebody else ended this run meanwhile": Explained(
        AFTER,
        "The job was cancelled, deleted, enqueued again or taken over while it ran. Its end here changes nothing.",
        "Nothing, if somebody did that on purpose.",
    ),
    "job %s does not wait for its children here: somebody else ended this run meanwhile": Explained(
        AFTER,
        "The job was cancelled, deleted or taken over while it split. Its end here changes nothing.",
        "Nothing, if somebody did that on purpose.",
    ),
    "worker %s: %s": Explained(
        AFTER,
        "Another worker has taken the job over, or somebody deleted it. What this run would write is refused. In a "
        "pool, the second line is an error with which one of its workers ended.",
        "Nothing about the first. The second says what to do. For \"Redis answers again\", see [Redis](#redis).",
        (
            "worker ...: job ...: another worker took this run over; this execution ends without a verdict",
            "worker ...: ... (an error of a pool's worker)",
        ),
    ),
    "worker %s: the failure of job %s could not be recorded: %s": Explained(
        AFTER,
        "Redis takes everything but this job's error, for example because it is too large.",
        "See the reason. RQ's clean-up fails the job later.",
    ),
    "worker %s: could not %s": Explained(
        AFTER,
        "The job's outcome is saved, and a step after it failed: releasing dependents or a rate limit slot.",
        "See the traceback. RQ's maintenance does the step within ten minutes.",
        ("worker ...: could not release the dependents of job ...", "worker ...: could not enqueue dependents in ..."),
    ),
    "worker %s: jobs of its lease stay for others to take over: %s": Explained(
        AFTER,
        "The worker ended and could not put jobs of its lease back. Other workers take them over.",
        "Nothing.",
    ),
    "environment: %s %s no setting of rqmem and passed over; 'rqmem config' shows all there are": Explained(
        WORKERS, "A variable begins with `RQMEM_` and is no setting: probably a typing error.",
        "Compare with [Settings](settings.md).",
    ),
    "subscriber %r failed on %r": Explained(
        HOOKS, "Code that listens to events in the process raised an error.", "Mend it, or report it if it is rqmem's."
    ),
    "worker %s: horse failed": Explained(
        WORKERS,
        "The horse ended by an error outside any job. Its job is settled by the worker, which forks a new horse.",
        "Look at the traceback. If no code of yours is in it, report it.",
    ),
    "worker %s: hooks of job %s were cut short: %s": Explained(
        HOOKS, "`after_job` hooks used up their time or memory. The job's outcome stands.", "Make the hook faster."
    ),
    "worker %s: %s overrides %s, which a warm horse does not call: each job gets a horse of its own, as with "
    "--isolation fork": Explained(
        WORKERS, "A subclass of yours changes how RQ forks or watches. So each job is forked, as in RQ.",
        "Nothing, or remove the override, or use [hooks](integrations.md#your-own-cleanup).",
    ),
    "worker %s: job %s ran without its ceiling: %s.monitor_work_horse does not call MemoryWorker's, which keeps it: "
    "have it call super().monitor_work_horse(job, queue, execution)": Explained(
        WORKERS, "A subclass of yours replaces the method that keeps the ceiling.", "Call `super()` as the line says."
    ),
    "worker %s: a command could not be carried out": Explained(
        WORKERS, "A command of RQ (`send_stop_job_command`, `send_shutdown_command`) failed.", "See the traceback."
    ),
    "Not running execution %s, command ignored.": Explained(
        WORKERS, "Somebody asked to stop an execution that has ended meanwhile.", "Nothing."
    ),
    "--preload %s": Explained(
        WORKERS,
        "A preloaded module started threads. Horses do not have them, so a job may wait for one for ever.",
        "Start the threads at first use. [The reason](breaches.md#modules-that-begin-threads-when-they-are-preloaded)",
        ("--preload ... left ... threads running ...: horses do not have them, ...",),
    ),
    "worker %s: a profile of %s was dropped: %s; this is said once": Explained(
        WORKERS, "memray's capture could not be kept: it is too large, or the disk is full.",
        "See the reason. `--profile-dir` names another directory.",
    ),
    "worker %s: no snapshot: %s": Explained(
        WORKERS, "After SIGUSR2 the snapshot could not be written.", "See the reason; often the directory."
    ),
    "worker %s: no snapshot": Explained(WORKERS, "After SIGUSR2 the snapshot failed.", "Report the traceback."),
    "worker %s: takes the name over from a dead worker (%s)": Explained(
        WORKERS, "A worker of the same name died and had not signed off. Normal after `kill -9`.", "Nothing."
    ),
    "worker %s: the name was another worker's (%s), which may be dead: waiting until that is known, some %.0f s":
    Explained(
        WORKERS, "A worker of the same name ran on another machine. This one waits to be sure that it is dead.",
        "Wait, or give each worker a name of its own.",
    ),
    "pool %s: worker %s %s after %.0f s; a new one starts %s": Explained(
        POOL, "A worker of the pool ended by itself. The line says how. The pool starts another under the same name.",
        "See the worker's lines above. If it repeats, the pool waits longer each time, up to 30 seconds.",
    ),
    "only %s of %s MB of memory are free here beyond a tenth: the budget is one ceiling, %s MB; give a lower --memory, "
    "or more memory": Explained(
        POOL, "The pool found less free memory than one job may use. So one job runs at a time.",
        "Give a lower `--memory`, or see what else uses memory here. [Sizing](sizing.md) has the sum.",
    ),
    "pool %s: told to stop again; its workers end at once": Explained(
        POOL, "A second SIGTERM or Ctrl-C came. Jobs are ended. Chunked jobs go on elsewhere.", "Nothing."
    ),
    "worker %s: told to restart, but it is part of another program, so it goes on": Explained(
        WORKERS, "`rqmem restart` named a worker that runs inside a program of yours, which it must not restart.",
        "Restart that program. [Restart](restart.md)",
    ),
    "worker %s: a ceiling of %s MB and a reserve of %s MB are more than the %s MB that this %s: the kernel will act "
    "first, and on any process": Explained(
        MACHINE, "The machine or container has less memory than one job may use. The kernel would kill first.",
        "Lower `--memory`, or give the container more. [Sizing](sizing.md)",
    ),
    "%s (%s): waiting for it to %s": Explained(
        REDIS, "Redis does not answer, or refuses. The worker or job keeps its outcome and waits, however long.",
        "Mend Redis. [Errors of Redis](#errors-of-redis) says what each means.",
        ("Redis does not answer (...): waiting for it to ...", "Redis refuses (...): waiting for it to ..."),
    ),
    "%s after %.1f s: could %s": Explained(
        REDIS, "Redis takes writes again. The worker goes on.", "Nothing.",
        ("Redis answers again after ... s: could ...", "Redis no longer refuses after ... s: could ..."),
    ),
    "worker %s: %s the heartbeat: %s": Explained(
        REDIS, "The worker could not write its heartbeat. Its job goes on.",
        "Mend Redis.",
        ("worker ...: Redis does not answer the heartbeat: ...", "worker ...: Redis refuses the heartbeat: ..."),
    ),
    "words.REDIS_BACK['away']": Explained(REDIS, "Redis answers again.", "Nothing.", ("Redis answers again",)),
    "worker %s: Redis knew it no more, and knows it again": Explained(
        REDIS, "The worker's record had expired, or Redis lost its data. The worker has written it again.",
        "If nobody flushed Redis, check its persistence: `rqmem doctor`.",
    ),
    "worker %s: could not say farewell to Redis: %s": Explained(
        REDIS, "The worker ended while Redis was away. Its record expires by itself.", "Nothing."
    ),
    "worker %s: could not sign off: %s": Explained(
        REDIS, "The worker ended while Redis was away. Its record expires by itself.", "Nothing."
    ),
    "scheduler: takes over the lock of queue %s from a scheduler that was killed": Explained(
        WORKERS,
        "The worker that moved scheduled jobs was killed. This one does it now.",
        "Nothing.",
    ),
    "scheduler: could not sign off: %s": Explained(
        REDIS, "The scheduler ended while Redis was away. Its lock expires by itself.", "Nothing."
    ),
    "worker %s: a part of the heartbeat failed; told once": Explained(
        REDIS, "An unexpected error in the heartbeat. The other parts go on.", "Report the traceback."
    ),
    "worker %s: no commands are heard until Redis takes a subscription again (%s)": Explained(
        REDIS, "RQ's commands (stop a job, shut down) do not reach this worker at the moment.",
        "Mend Redis. With an ACL, allow the channel `rq:pubsub:*` ([rights](redis.md#rights)).",
    ),
    "%s by %s is done, and Redis did not take its record: %s": Explained(
        REDIS, "Somebody cancelled, retried or paused something. It worked, and the note about it is lost.", "Nothing."
    ),
    "worker %s: Redis refused %d writes to the journal: %s": Explained(
        JOURNAL, "Redis did not take history: it is full, or a right is missing. Jobs lose nothing.",
        "Raise `maxmemory`, or allow `rqmem:*` in the ACL ([rights](redis.md#rights)).",
    ),
    "worker %s: the journal on this Redis is of another version of rqmem and is left alone: nothing is remembered of "
    "what runs here; 'rqmem journal clear' begins a new one": Explained(
        JOURNAL, "Another version of rqmem wrote the history. Jobs run as always.",
        "Upgrade all workers. Then `rqmem journal clear`, if the history may go.",
    ),
    "%s: rqmem_up is 0 until it does: %s": Explained(
        JOURNAL, "The exporter cannot read Redis.", "Mend Redis, or the exporter's `--url`.",
        ("Redis does not answer: rqmem_up is 0 until it does: ...",),
    ),
    "a look at Redis failed": Explained(
        JOURNAL, "The dashboard could not read Redis in this second. It tries again.", "See the traceback."
    ),
    "/rq/ is not there: %s; all other pages are": Explained(
        JOURNAL, "rq-dashboard cannot be mounted below `/rq/`.", "See the reason; often its version."
    ),
    "file of alert URLs %r can be read by others, and URLs are secrets: chmod 600 it": Explained(
        ALERTS, "Other users of the machine can read your passwords and tokens.", "`chmod 600` the file."
    ),
    "alerts: %s: %s": Explained(
        ALERTS, "The sender of alerts cannot read Redis. Alerts wait there.", "Mend Redis.",
        ("alerts: Redis does not answer: ...",),
    ),
    "alerts: %s": Explained(
        ALERTS, "Redis answers again, and alerts are sent.", "Nothing.", ("alerts: Redis answers again",)
    ),
    "%s takes alerts again": Explained(ALERTS, "The service works again.", "Nothing."),
    "%s did not take an alert: %s; it is tried again": Explained(
        ALERTS, "Mail server, Slack or another service refused.", "See the reason. Try `rqmem alerts test`."
    ),
    "%s: %s not sent, after %d tries: %s": Explained(
        ALERTS, "The service refused several times. This alert is dropped; `rqmem alerts` still has it.",
        "See the reason. Try `rqmem alerts test`.",
    ),
    "%s: %s not sent: older than an hour": Explained(
        ALERTS, "Alerts waited for more than an hour and are no news. `rqmem alerts` still has them.",
        "See why the service did not take them: the lines above.",
    ),
    "worker %s: the sender of alerts is not ready; alerts wait for it in Redis": Explained(
        ALERTS, "The process that sends alerts needs long to start.", "Nothing, unless it repeats."
    ),
    "worker %s: the sender of alerts has died (%s); another begins in %g s": Explained(
        ALERTS, "The process that sends alerts was killed or failed. No alert is lost.", "See the lines above it."
    ),
    "worker %s: alerts are not sent: this connection to Redis has no URL": Explained(
        ALERTS, "The worker got a connection object, and the sender of alerts cannot make the same one.",
        "Run `rqmem alerts deliver` with `--url` next to the workers.",
    ),
    "worker %s: alerts are not sent: %s": Explained(
        ALERTS, "An alert URL cannot be used, or Apprise is not installed.", "Do what the line says."
    ),
    "worker %s: Redis refused %d alerts, first %s": Explained(
        ALERTS, "Redis did not take alerts: it is full, or a right is missing.",
        "Raise `maxmemory`, or allow `rqmem:*` in the ACL ([rights](redis.md#rights)).",
    ),
    "worker %s: hooks did not hear of %d events: they take too long": Explained(
        HOOKS, "`on(...)` hooks are slower than events come. Jobs are not slowed.", "Make the hook faster."
    ),
    "worker %s: hooks of on(...) were cut short: they take too long": Explained(
        HOOKS, "At the worker's end its `on(...)` hooks were still busy.", "Make the hook faster."
    ),
    "worker %s: the process of on(...) hooks ends, and another one begins: %s": Explained(
        HOOKS, "A hook took longer than a minute, or used too much memory.", "Mend the hook."
    ),
    "worker %s: the process of on(...) hooks failed": Explained(
        HOOKS, "It ended by an error; another one begins.", "See the traceback."
    ),
    "worker %s: %s failed: %s": Explained(
        HOOKS, "An `on(...)` hook raised an error. The others go on.", "Mend the hook.",
        ("worker ...: on(...) hook ... failed: ...",),
    ),
    "integration %s does not fit what is installed: %s: %s": Explained(
        HOOKS, "The integration for this library cannot be used with its installed version.",
        "Upgrade the library or rqmem, or use `--no-integrations`.",
    ),
    "a session that a job left could not be closed: %s: %s": Explained(
        HOOKS, "A job left an SQLAlchemy session that cannot be closed.", "Close sessions in the job."
    ),
    "this horse has no cgroup: %s: %s": Explained(
        MACHINE, "The kernel's layer is missing for this horse. The watcher keeps the ceiling.",
        "`rqmem doctor` says why. [cgroups](cgroup.md)",
    ),
    "no cgroup for this horse: %s: %s": Explained(
        MACHINE, "The kernel's layer is missing for this horse. The watcher keeps the ceiling.",
        "`rqmem doctor` says why. [cgroups](cgroup.md)",
    ),
    "worker %s: processes of job %s are dead and left %s": Explained(
        MACHINE, "The job left files in `/dev/shm` or shared memory segments. They still use memory.",
        "Remove them, and have the job remove them in a `finally`.",
    ),
    "worker %s: what %d processes of job %s used did not count: they are another user's, and /proc hides them "
    "(hidepid); mount it with gid= of the worker's group": Explained(
        MACHINE, "The ceiling did not count some processes of the job.", "Mount `/proc` as the line says."
    ),
    "worker %s: processes of job %s go on, since they are another user's and this worker may not end them: %s; end "
    "them yourself, or give the worker CAP_KILL": Explained(
        MACHINE, "The job was stopped, and some of its processes could not be.", "Do what the line says."
    ),
}  # fmt: skip
"""Text of a call of a logger -> what it means."""
