"""Which Redis rqmem uses, and the embedded server."""
