"""As `rqmem.rq_names`: those that RQ has for its command line only."""

from __future__ import annotations

from rqmem.rq_check import check
from rqmem.rq_seams import CLI_PARTS

check(CLI_PARTS)

from rq.cli.helpers import get_redis_from_config, parse_function_args
