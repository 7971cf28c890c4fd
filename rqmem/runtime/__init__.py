"""Processes at work: the worker and its watcher, the horse, heartbeats, breaches, recovery."""
