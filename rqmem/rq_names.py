"""The names of RQ that the rest of rqmem uses, imported once the installed RQ has been found to have them all.

Importing this module raises `UnsupportedRq` otherwise.
"""

from __future__ import annotations

from rqmem.rq_check import check

check()

from rq.command import PUBSUB_CHANNEL_TEMPLATE, send_stop_job_command
from rq.connections import parse_connection
from rq.defaults import (
    DEFAULT_CONNECTION_CLASS,
    DEFAULT_JOB_CLASS,
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_QUEUE_CLASS,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
    RQ_KEY_PREFIX,
    UNSERIALIZABLE_RETURN_VALUE_PAYLOAD,
)
from rq.exceptions import (
    AbandonedJobError,
    DequeueTimeout,
    DeserializationError,
    DuplicateJobError,
    InvalidJobOperation,
    NoSuchJobError,
    StopRequested,
)
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, Execution, ExecutionRegistry
from rq.group import Group
from rq.job import UNEVALUATED, Job, JobStatus, Retry, get_current_job, validate_job_id
from rq.job import _current_job as current_job
from rq.logutils import blue, green, setup_loghandlers
from rq.queue import EnqueueData, Queue
from rq.rate_limit import RateLimit, RateLimitRegistry, release_slot
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.results import Result
from rq.scheduler import RQScheduler
from rq.scripts import release_lock
from rq.serializers import resolve_serializer
from rq.suspension import WORKERS_SUSPENDED, is_suspended
from rq.timeouts import BaseTimeoutException, JobTimeoutException, UnixSignalDeathPenalty
from rq.utils import decode_redis_hash, now, parse_composite_key, str_to_date, utcformat, utcparse
from rq.worker import Worker, WorkerStatus
from rq.worker_pool import ForkProcess, WorkerData, WorkerPool
from rq.worker_registration import WORKERS_BY_QUEUE_KEY
from rq.worker_registration import get_keys as get_worker_keys
from rq.worker_registration import register as register_worker
