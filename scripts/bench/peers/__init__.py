"""The same job for each job system that `scripts.bench.throughput` compares: one module a system, with its ``send``."""
