"""Several workers of one command: `memory_worker_pool`."""
