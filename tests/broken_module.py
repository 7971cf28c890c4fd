"""Fails when it is imported, as user code sometimes does."""

raise RuntimeError("this module cannot be imported")
