"""Decisions as pure functions over values: no clock, no I/O, property-tested."""
