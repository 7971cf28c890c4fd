"""Programs around rqmem: the demo, and what an application would write to use it."""
