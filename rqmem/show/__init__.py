"""Text and pages made of what `rqmem.observe` has read. Reads nothing itself."""
