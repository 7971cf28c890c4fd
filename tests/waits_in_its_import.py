"""Preloaded by tests: its import lasts until a file is there. Says by another that it has begun."""

import os

from tests.sample_jobs import wait_for_file

wait_for_file(os.environ["TESTS_WAIT_FOR"])
