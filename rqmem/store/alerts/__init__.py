"""Alerts in Redis, and the stream that senders read."""
