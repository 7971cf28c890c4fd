"""Programs around rqmem: the demo, benches, simulations, and what an application would write to use it."""
