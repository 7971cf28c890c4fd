"""Whether the Redis user may use rqmem's keys. A user that was made for RQ may only use ``rq:*``."""

from __future__ import annotations

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from rqmem.errors import RedisUnavailable
from rqmem.rq_names import RQ_KEY_PREFIX
from rqmem.store import keys


def check_may_write(connection: Redis) -> None:
    """Raise `RedisUnavailable` if Redis forbids our keys. Other errors show up where they matter."""
    try:
        connection.set(keys.PROBE, 1, px=1)
    except NoPermissionError as error:
        user = connection.connection_pool.connection_kwargs.get("username") or "default"
        raise RedisUnavailable(explained(error, user)) from None
    except RedisError:
        pass


def refused(connection: Redis) -> str:
    """Why our keys may not be read, or empty. Writes nothing."""
    try:
        connection.exists(keys.PROBE)
    except NoPermissionError as error:
        return " ".join(str(error).split())
    except RedisError:  # another error
        pass
    return ""


def explained(error: NoPermissionError, user: str = "NAME") -> str:
    """In one line, with what to do."""
    return (
        f"Redis refuses us: {' '.join(str(error).split())}; its user needs the keys {keys.PREFIX}:* as well as "
        f"{RQ_KEY_PREFIX}:*, as in ACL SETUSER {user} ~{keys.PREFIX}:*"
    )
