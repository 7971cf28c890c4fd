"""Everything of RQ that rqmem overrides or relies on.

RQ calls the methods that `rqmem.MemoryWorker` overrides. If RQ renames one, or calls it with other arguments, ours is
never called, and jobs run without a ceiling. So `rqmem.rq_check` compares this list with the installed RQ, and rqmem
refuses to start with one that differs. CONTRIBUTING.md says how to admit a new RQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

KNOWN = ">=3.0,<3.1"
"""The versions of RQ whose tests pass with `rqmem.MemoryWorker`."""

ENQUEUE_OPTIONS = frozenset(
    (
        *("job_timeout", "description", "result_ttl", "ttl", "failure_ttl", "depends_on", "job_id", "at_front"),
        *("meta", "retry", "repeat", "on_success", "on_failure", "on_stopped", "rate_limit", "webhooks"),
        *("pipeline", "unique", "args", "kwargs"),
    )
)
"""The keyword arguments that `rq.Queue.enqueue` does not pass on to the job."""


class Part(NamedTuple):
    """What rqmem needs of one module or class of RQ (``module:Class``).

    Attributes:
        overridden: methods that a class of ours overrides: ``name(parameters) <- callers``. The parameters must be
            exactly these; ``=`` marks those with a default. RQ's callers must still call the method.
        called: functions and methods that rqmem calls: ``name(positional, *, by keyword)``. RQ may have more
            parameters if they have defaults.
        names: what must only be there. An attribute of an instance must be named in ``__init__``.
        values: what must have this value, with RQ's key prefix ``rq``.
        inside: function -> attributes and texts that its code must contain.
        options: function -> the names that it looks for among its keyword arguments, neither more nor fewer.
    """

    where: str
    overridden: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    names: str = ""
    values: Mapping[str, str] = {}
    inside: Mapping[str, str] = {}
    options: Mapping[str, frozenset[str]] = {}


PARTS = (
    Part(
        "rq.worker:Worker",
        overridden=(
            # A worker's life
            "__init__(queues, name=, default_result_ttl=, connection=, exception_handlers=, maintenance_interval=, "
            "default_worker_ttl=, worker_ttl=, job_class=, queue_class=, log_job_description=, "
            "job_monitoring_interval=, disable_default_exception_handler=, prepare_for_work=, serializer=, "
            "work_horse_killed_handler=)",
            "_set_connection(connection) <- __init__",
            "_set_ip_address(connection) <- __init__",
            "work(burst=, logging_level=, date_format=, log_format=, max_jobs=, max_idle_time=, with_scheduler=, "
            "dequeue_strategy=)",
            "bootstrap(logging_level=, date_format=, log_format=) <- work",
            "register_birth() <- bootstrap",
            "register_death() <- teardown",
            "serialize() <- register_birth, maintain_heartbeats",
            "heartbeat(timeout=, pipeline=) <- work, maintain_heartbeats, prepare_job_execution",
            "set_state(state, pipeline=) <- bootstrap, check_for_suspension",
            "teardown() <- work",
            # Between jobs
            "check_for_suspension(burst) <- work",
            "run_maintenance_tasks() <- work",
            "should_run_maintenance_tasks() <- work",
            "dequeue_job_and_maintain_ttl(timeout, max_idle_time=) <- work",
            "_start_scheduler(burst=, logging_level=, date_format=, log_format=) <- work",
            "stop_scheduler() <- _shutdown, teardown",
            # Commands and signals
            "handle_payload(message) <- subscribe",
            "_pubsub_exception_handler(exc, pubsub, pubsub_thread) <- subscribe",
            "request_stop_execution(execution_id) <- rq.command:handle_stop_execution_command",
            "kill_horse(sig=) <- request_stop_execution, request_force_stop, rq.command:handle_kill_worker_command, "
            "rq.command:handle_stop_job_command",
            "_shutdown() <- request_stop",
            "set_shutdown_requested_date() <- _shutdown",
            # One job, in the worker
            "execute_job(job, queue) <- work",
            "prepare_execution(job) <- execute_job",
            "fork_work_horse(job, queue) <- execute_job",
            "monitor_work_horse(job, queue, execution) <- execute_job",
            "_handle_stopped_job(job, queue, execution) <- monitor_work_horse",
            # One job, in the horse
            "setup_work_horse_signals() <- main_work_horse",
            "perform_job(job, queue, execution) <- main_work_horse",
            "prepare_job_execution(job, remove_from_intermediate_queue=) <- perform_job",
            "_finalize_success(job, queue, execution, return_value) <- perform_job",
            "_finalize_failure(job, queue, execution, exc_info) <- perform_job",
            "handle_execution_ended(job, queue, heartbeat_ttl) <- _finalize_success, _finalize_failure",
            "handle_exception(job, *exc_info) <- _finalize_failure",
            "handle_job_success(job, queue, started_job_registry, execution) <- _finalize_success",
            "handle_job_retry(job, queue, retry, started_job_registry, execution) <- _finalize_success",
            "handle_job_failure(job, queue, started_job_registry=, exc_string=, execution=) <- _finalize_failure, "
            "_handle_stopped_job, monitor_work_horse",
            "cleanup_execution(job, pipeline, execution=) <- handle_job_success, handle_job_retry, handle_job_failure",
            "_enqueue_dependents_safely(queue, job) <- handle_job_failure, handle_job_retry",
            "_release_slot_safely(job) <- handle_job_failure, handle_job_retry",
        ),
        called=(
            "all(*, connection)",
            "get_current_job_id()",
            "get_heartbeat_ttl(job)",
            "get_redis_server_version()",
            "get_state()",
            "handle_work_horse_killed(job, retpid, ret_val, rusage)",
            "main_work_horse(job, queue)",
            "maintain_heartbeats(job, execution)",
            "procline(message)",
            "queue_names()",
            "reorder_queues(*, reference_queue)",
            "request_force_stop(signum, frame)",
            "request_stop(signum, frame)",
            "wait_for_horse()",
        ),
        names="_dequeue_strategy _horse_pid _is_horse _ordered_queues _shutdown_requested_date _state "
        "_stop_requested _stopped_job_id birth_date connection death_penalty_class default_result_ttl "
        "executions executions_key failed_job_count horse_pid ip_address is_horse job_class "
        "job_monitoring_interval key "
        "last_cleaned_at last_heartbeat log log_job_description name pid pubsub_channel_name queue_class queues "
        "redis_worker_namespace_prefix redis_workers_keys scheduler serializer successful_job_count "
        "total_working_time worker_ttl",
        inside={
            "serialize": "birth hostname pid queues",
            "register_death": "death",
            "set_shutdown_requested_date": "shutdown_requested_date",
            "increment_successful_job_count": "successful_job_count",
            "increment_failed_job_count": "failed_job_count",
            "set_state": "state",
            "fork_work_horse": "RQ_WORKER_ID RQ_JOB_ID",
            # `handle_job_success` of ours puts its fence into this call, and needs a transaction around it.
            "handle_job_success": "move_dependents_to_ready enqueue_ready_jobs_by_queue watch pipeline",
            # We write what this does with the outcome, where no callback comes first.
            "handle_execution_ended": "ended_at heartbeat",
            # Our `perform_job` puts its own in the place of the job's method and of its time limit.
            "perform_job": "perform timeout death_penalty_class",
        },
    ),
    Part("rq.worker:WorkerStatus", names="BUSY IDLE"),
    Part(
        "rq.worker_pool:WorkerPool",
        overridden=(
            "__init__(queues, connection, num_workers=, worker_class=, serializer=, job_class=, queue_class=, "
            "exception_handlers=, *args, **kwargs)",
            "request_stop(signum=, frame=)",
            "start(burst=, logging_level=)",
        ),
        names="Status _burst _connection_class _pool_class _pool_kwargs _queue_names connection exception_handlers "
        "job_class name num_workers queue_class serializer status worker_class worker_dict",
    ),
    Part("rq.worker_pool", names="ForkProcess WorkerData"),
    Part("rq.worker.base:logger", values={"name": "rq.worker"}),
    Part("rq.job:logger", values={"name": "rq.job"}),
    Part(
        "rq.worker_registration",
        called=("get_keys(queue, connection)", "register(worker, pipeline)"),
        values={"WORKERS_BY_QUEUE_KEY": "rq:workers:%s"},
    ),
    Part("rq.scripts", called=("release_lock(connection, lock_key, owner_token)",)),
    Part(
        "rq.scheduler:RQScheduler",
        overridden=(
            "__init__(queues, connection, interval=, logging_level=, date_format=, log_format=, serializer=, name=)",
            "work() <- rq.scheduler:run",
            "acquire_locks(auto_start=) <- work",
            "register_birth() <- work",
            "heartbeat() <- work",
            "enqueue_scheduled_jobs() <- work",
            "stop() <- work",
            "to_dict() <- save",
        ),
        called=(
            "_install_signal_handlers()",
            "get_locking_key(name)",
            "register_death()",
            "release_locks()",
            "save()",
            "start()",
        ),
        names="_process _queue_names _stop_requested connection key name",
        inside={"to_dict": "name"},
    ),
    Part(
        "rq.job:Job",
        called=(
            "__init__(id, connection, serializer)",
            "cancel(*, pipeline)",
            "cleanup(*, ttl, pipeline)",
            "delete()",
            "dependents_key_for(job_id)",
            "exists(job_id, connection)",
            "create(func, *, connection)",
            "fetch(id, *, connection, serializer)",
            "get_call_string()",
            "get_position()",
            "get_result_ttl(default_ttl)",
            "get_status(*, refresh)",
            "key_for(job_id)",
            "latest_result()",
            "perform()",
            "refresh()",
            "register_dependency(*, pipeline)",
            "restore(raw_data)",
            "return_value(*, refresh)",
            "save(*, pipeline)",
            "set_status(status, *, pipeline)",
            "should_enqueue_at_front()",
            "to_dict()",
        ),
        values={"redis_job_namespace_prefix": "rq:job:"},
        names="_dependency_ids _result _status _stopped_callback_name _success_callback_name "
        "allow_dependency_failures args connection created_at data dependencies_key dependency_ids dependents_key "
        "description ended_at enqueue_at_front enqueued_at failed_job_registry failure_callback_timeout failure_ttl "
        "func func_name has_rate_limit id instance key kwargs last_heartbeat meta number_of_retries origin "
        "redis_server_version repeats_left result_ttl retries_left serializer should_retry started_at "
        "started_job_registry stopped_callback_timeout success_callback_timeout timeout ttl worker_name",
        inside={
            # Our scripts read and write these fields.
            "to_dict": "created_at data dependency_id dependency_ids ended_at enqueued_at group_id last_heartbeat meta "
            "origin rate_limit_key repeats_left result_ttl started_at status success_callback_name timeout webhooks "
            "worker_name",
            "dependents_key_for": ":dependents",
            "dependencies_key": ":dependencies",
            "prepare_for_execution": "last_heartbeat status started_at worker_name",
            "_handle_success": "set_status save create finished_job_registry add",
            "cleanup": "delete expire",
        },
    ),
    Part(
        "rq.job:JobStatus",
        # The first four are in our scripts too.
        values={
            "QUEUED": "queued",
            "STARTED": "started",
            "DEFERRED": "deferred",
            "SCHEDULED": "scheduled",
            "FAILED": "failed",
            "FINISHED": "finished",
            "STOPPED": "stopped",
            "CANCELED": "canceled",
        },
    ),
    Part("rq.job:Retry", called=("__init__(*, max, interval)",)),
    Part("rq.job", called=("get_current_job(connection)", "validate_job_id(job_id)"), names="UNEVALUATED _current_job"),
    Part(
        "rq.queue:Queue",
        called=(
            "__init__(name, connection, *, job_class, serializer, death_penalty_class)",
            "_enqueue_job(job, *, pipeline, at_front)",
            "_enqueue_rate_limited_job(job, *, pipeline)",
            "_fetch_dequeued_job(connection, queue_key, job_id, *, job_class, serializer, death_penalty_class)",
            "all(connection)",
            "create_job(func, *, args, kwargs, timeout, result_ttl, ttl, failure_ttl, description, depends_on, job_id, "
            "meta, status, retry, repeat, on_success, on_failure, on_stopped, webhooks, group_id)",
            "dequeue_any(queues, timeout, *, connection, job_class, serializer, death_penalty_class)",
            "enqueue(f, *args, **kwargs)",
            "enqueue_at(datetime, f, *args, **kwargs)",
            "enqueue_in(time_delta, func, *args, **kwargs)",
            "enqueue_job(job, *, pipeline, at_front, unique)",
            "get_job_ids(offset, length)",
            "move_dependents_to_ready(job, *, pipeline)",
            "parse_args(f, *args, **kwargs)",
            "prepare_data(func, *, kwargs, job_id, description, meta, timeout, retry, result_ttl, failure_ttl, "
            "at_front)",
            "push_job_id(job_id, *, pipeline)",
            "remove(job_or_id)",
            "schedule_job(job, datetime, *, pipeline, unique)",
        ),
        names="DEFAULT_TIMEOUT canceled_job_registry connection count deferred_job_registry failed_job_registry "
        "finished_job_registry intermediate_queue intermediate_queue_key is_async job_class key name "
        "ready_job_registry redis_queues_keys scheduled_job_registry serializer started_job_registry",
        inside={
            "_fetch_dequeued_job": "queue job_id",  # which it sets on the error that it raises
            "enqueue": "parse_args",
            "enqueue_at": "parse_args schedule_job unique",
            "enqueue_call": "enqueue_job unique",
        },
        options={"parse_args": ENQUEUE_OPTIONS},
        values={"redis_queue_namespace_prefix": "rq:queue:", "redis_queues_keys": "rq:queues"},
    ),
    Part("rq.queue:EnqueueData", names="_asdict at_front func timeout"),
    Part(
        "rq.executions:Execution",
        called=(
            "__init__(id, job_id, connection, worker_name)",
            "create(job, ttl, *, pipeline, worker_name)",
            "delete(job, pipeline)",
        ),
        names="_job composite_key connection created_at id job_id key worker_executions_key worker_name",
        inside={"composite_key": "job_id : id"},  # as our scripts write it
    ),
    Part(
        "rq.executions:ExecutionRegistry",
        called=("__init__(job_id, connection)",),
        names="key",
        values={"key_template": "rq:executions:{0}"},
    ),
    Part("rq.executions", values={"WORKER_EXECUTIONS_KEY_TEMPLATE": "rq:worker:{0}:executions"}),
    Part(
        "rq.registry:BaseRegistry",
        called=(
            "__init__(name, connection)",
            "__contains__(item)",
            "get_job_ids(start, end, *, desc, cleanup)",
            "remove(job, *, pipeline)",
            "requeue(job_or_id)",
        ),
        names="key",
    ),
    Part(
        "rq.registry:StartedJobRegistry",
        called=("get_job_and_execution_ids(*, cleanup)",),
        values={"key_template": "rq:wip:{0}"},
    ),
    Part("rq.registry:FinishedJobRegistry", values={"key_template": "rq:finished:{0}"}),
    Part("rq.registry:ScheduledJobRegistry", called=("get_scheduled_time(job_or_id)",)),
    Part("rq.registry:ReadyJobRegistry", called=("remove(job, *, pipeline)",), names="key"),
    Part("rq.registry", names="CanceledJobRegistry DeferredJobRegistry FailedJobRegistry"),
    Part(
        "rq.intermediate_queue:IntermediateQueue",
        called=("get_job_ids()",),
        inside={"get_intermediate_queue_key": ":intermediate"},
    ),
    Part("rq.group:Group", called=("get_key(name)",), names="REDIS_GROUP_KEY"),
    Part(
        "rq.results:Result",
        called=("get_key(job_id)",),
        names="exc_string return_value",
        # Under a lease our script writes the result.
        inside={
            "get_key": ":results:",
            "save": "xadd maxlen persist expire",
            "serialize": "type worker_name return_value execution_id execution_started_at execution_ended_at timestamp",
        },
    ),
    Part(
        "rq.timeouts:BaseDeathPenalty",
        called=("__init__(timeout, exception, **kwargs)", "__enter__()", "__exit__(type, value, traceback)"),
    ),
    Part("rq.timeouts", names="BaseTimeoutException JobTimeoutException UnixSignalDeathPenalty"),
    Part(
        "rq.exceptions",
        names="AbandonedJobError DequeueTimeout DeserializationError DuplicateJobError InvalidJobOperation "
        "NoSuchJobError StopRequested",
    ),
    Part(
        "rq.command",
        called=("send_stop_job_command(connection, job_id)",),
        values={"PUBSUB_CHANNEL_TEMPLATE": "rq:pubsub:%s"},
    ),
    Part("rq.connections", called=("parse_connection(connection)",)),
    Part("rq.logutils", called=("blue(text)", "green(text)", "setup_loghandlers(level, date_format, log_format)")),
    Part("rq.rate_limit", called=("release_slot(job)",)),
    Part("rq.rate_limit:RateLimit", called=("__init__(key, concurrency)",)),
    Part(
        "rq.rate_limit:RateLimitRegistry",
        called=("__init__(key, connection)", "acquire_and_enqueue(concurrency)"),
        names="allowed_key rate_limited_key rl_keys_key config_key",
    ),
    Part("rq.serializers", called=("resolve_serializer(serializer)",)),
    Part("rq.suspension", called=("is_suspended(connection)",), values={"WORKERS_SUSPENDED": "rq:suspended"}),
    Part(
        "rq.utils",
        called=(
            "decode_redis_hash(h, *, decode_values)",
            "now()",
            "parse_composite_key(composite_key)",
            "str_to_date(date_str)",
            "utcformat(dt)",
            "utcparse(string)",
        ),
    ),
    Part(
        "rq.defaults",
        names="DEFAULT_CONNECTION_CLASS DEFAULT_JOB_CLASS DEFAULT_JOB_MONITORING_INTERVAL DEFAULT_LOGGING_DATE_FORMAT "
        "DEFAULT_LOGGING_FORMAT DEFAULT_MAINTENANCE_TASK_INTERVAL DEFAULT_QUEUE_CLASS DEFAULT_RESULT_TTL "
        "DEFAULT_WORKER_TTL RQ_KEY_PREFIX UNSERIALIZABLE_RETURN_VALUE_PAYLOAD",
    ),
)

CLI_PARTS = (
    Part(
        "rq.cli.helpers",
        called=("get_redis_from_config(settings, connection_class)", "parse_function_args(arguments)"),
    ),
)
"""Of modules that RQ itself imports for its command line only."""
