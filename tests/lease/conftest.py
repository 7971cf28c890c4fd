from tests.worker.conftest import own_redis

__all__ = ["own_redis"]
