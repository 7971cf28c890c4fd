"""What `scripts.test_memory_management` is made of: jobs, what is expected of each, and the worker that runs them.

Reading order: `jobs` (one a mechanism), `verdicts` (pure: figures to a line), `walk` (runs a job, asks for its
verdict), `own_worker` (the worker, and what is left of it and its jobs in Redis).
"""
