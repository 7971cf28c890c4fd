"""What pages and the API show, as values: read from Redis, without Flask."""
