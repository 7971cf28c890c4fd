"""Alerts as Redis keeps them, and the stream that senders read."""
