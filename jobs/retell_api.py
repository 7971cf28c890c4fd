"""Retell's API as the campaign jobs use it: the official client, several requests in flight, three kinds of errors.

The client is asynchronous. Its event loop runs in the calling thread, and only during a method of `RetellApi`. So
requests in flight end at once when a job is stopped, also at its ceiling; a thread that waits for an answer would go
on. This module does not use the database.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jobs.event_loops import ended_by_time_limit
from rqmem.errors import ConfigError, RqmemError

if TYPE_CHECKING:
    import httpx
    from retell import APIStatusError

API_RETRIES = 5  # given for each request, since the SDK makes none for calls
PAGE = 1000
SHORTEST_WAIT_SECONDS, DEFAULT_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.1, 5.0, 600.0

T = TypeVar("T")

_sleep = asyncio.sleep  # of its own, so that a test can watch it


class RequestRefused(RqmemError):
    """The API refuses this request, and has done nothing."""


class RetellUnavailable(RqmemError):
    """The API gives no usable answer. The request has not been carried out, or may be repeated without harm."""


class AnswerLost(RetellUnavailable):
    """Nobody knows whether the API has carried out the request. If it is repeated, it may be carried out twice."""


class ListedCall(NamedTuple):
    """A call as the API lists it; ``reason``: why it was disconnected."""

    call_id: str
    status: str
    reason: str | None
    metadata: dict[str, Any]


class RetellApi:
    """The API, as a context manager. Methods raise `ConfigError` where it refuses the key or the account.

    If the API says that there are too many requests, they wait as long as it asks and try again. Only the job's own
    time limit ends that. The client reads RETELL_API_KEY and RETELL_BASE_URL.

    Args:
        retries: of a request that got no sensible answer, by the SDK, with back-off; not of batches.

    Raises:
        ConfigError: RETELL_API_KEY is not set, or no key.
    """

    def __init__(self, retries: int = API_RETRIES) -> None:
        key = os.environ.get("RETELL_API_KEY", "").strip()  # as of a file, with its line's end
        if not key:
            raise ConfigError("RETELL_API_KEY is not set: give the worker the key of your Retell account")
        if not (key.isascii() and key.isprintable()):  # the client would repeat it in its error
            raise ConfigError("RETELL_API_KEY has characters in it that no key has: give the worker the key alone")
        import httpx
        from retell import AsyncRetell, DefaultAsyncHttpxClient  # 70 MB: only where calls are made

        self._loop = asyncio.Runner()
        base_url = os.environ.get("RETELL_BASE_URL", "").strip() or None
        http_client = DefaultAsyncHttpxClient(event_hooks={"response": [_leave_429_to_us]})
        try:
            self._client = AsyncRetell(api_key=key, base_url=base_url, http_client=http_client)
        except httpx.InvalidURL as error:
            raise ConfigError(f"RETELL_BASE_URL is no URL of an API: {error}") from None
        self._retries = retries

    def __enter__(self) -> RetellApi:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.run(self._hang_up())
        finally:
            self._loop.close()

    async def _hang_up(self) -> None:
        """Cancel what an exception has left in flight, and close the connections."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._client.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with ended_by_time_limit(self._loop.get_loop()):
            return self._loop.run(work)

    def each(self, items: Collection[T], work: Callable[[T], Awaitable[None]], in_flight: int) -> None:
        """Do ``work`` for each of ``items``, at most ``in_flight`` at a time. The first error ends it.

        Requests in flight are cancelled before this returns. If a signal raises the error, they are cancelled when the
        context is left.
        """
        self._run(self._each(items, work, in_flight))

    async def _each(self, items: Collection[T], work: Callable[[T], Awaitable[None]], in_flight: int) -> None:
        waiting = iter(items)

        async def line() -> None:
            for item in waiting:
                await work(item)

        lines = [asyncio.create_task(line()) for _ in range(min(in_flight, len(items)))]
        try:
            await asyncio.gather(*lines)
        finally:
            for each in lines:
                each.cancel()
            await asyncio.gather(*lines, return_exceptions=True)

    async def phone_call(self, *, within_seconds: float = math.inf, **request: Any) -> str:
        """Make a call, and return its id. With an ``idempotency_key`` it is made once, however often it is asked for.

        Args:
            within_seconds: how long it may be asked for, since the API forgets keys.
            request: as the SDK takes it.

        Raises:
            RequestRefused: the API refuses this call.
            RetellUnavailable: it does not answer, also when tried again, or not in that time.
        """
        create = partial(self._client.call.create_phone_call, **request, max_retries=self._retries)
        answer = await _as_often_as_allowed(create, "call_id", str, within_seconds=within_seconds)
        return str(answer.call_id)

    def batch_call(self, **request: Any) -> str:
        """Have the API make all calls of a batch, and return the batch's id. There is no idempotency key for it.

        Raises:
            RequestRefused: the API refuses the batch as a whole.
            AnswerLost: it may have accepted it.
            RetellUnavailable: it could not be reached.
        """
        create = partial(self._client.batch_call.create_batch_call, **request, max_retries=0)
        answer = self._run(_as_often_as_allowed(create, "batch_call_id", str, once=True))
        return str(answer.batch_call_id)

    def calls(self, key: str, values: Collection[str]) -> list[ListedCall]:
        """The calls that the API knows with one of ``values`` under ``key`` in their metadata.

        Raises `RetellUnavailable`.
        """
        return self._run(self._calls(key, values)) if values else []

    async def _calls(self, key: str, values: Collection[str]) -> list[ListedCall]:
        wanted: Any = {"metadata": [{"key": key, "type": "enum", "op": "in", "value": list(values)}]}
        found: list[ListedCall] = []
        next_page: dict[str, Any] = {}
        while True:
            request: dict[str, Any] = {"filter_criteria": wanted, "limit": PAGE, "sort_order": "ascending", **next_page}
            read = partial(self._client.call.list, **request, max_retries=self._retries)
            page = await _as_often_as_allowed(read, "items", list)
            for call in page.items:
                metadata = call.metadata if isinstance(call.metadata, dict) else {}
                found.append(ListedCall(call.call_id, call.call_status, call.disconnection_reason, metadata))
            if not page.has_more or page.pagination_key is None:
                return found
            next_page = {"pagination_key": page.pagination_key}

    def free_lines(self) -> float:
        """Which part of the lines that outbound calls may use is free now, 0 to 1; also the way to try the key.

        Raises `RetellUnavailable`.
        """
        read = partial(self._client.concurrency.retrieve, max_retries=self._retries)
        lines = self._run(_as_often_as_allowed(read, "concurrency_limit", int | None))
        ours = (lines.concurrency_limit or 0) - (lines.reserved_inbound_concurrency or 0)
        return max(0.0, 1 - (lines.current_concurrency or 0) / ours) if ours > 0 else 0.0


async def _as_often_as_allowed(
    ask: Callable[[], Awaitable[Any]], needs: str, kind: Any, *, once: bool = False, within_seconds: float = math.inf
) -> Any:
    """Ask. If there were too many requests, wait as long as the API says and ask again, within ``within_seconds``.

    An answer ``needs`` a field of this kind: the SDK accepts anything, even a proxy's page or an empty object.
    """
    from retell import RateLimitError

    last, wait, at_once = time.monotonic() + within_seconds, 0.0, 0.0
    while time.monotonic() + wait <= last:
        await _sleep(wait)
        try:
            with _in_our_words(once=once):
                answer = await ask()
                if not isinstance(getattr(answer, needs, ...), kind):
                    raise ValueError(f"an answer has no {needs}")
                return answer
        except RateLimitError as error:
            wait = seconds_to_wait(error.response.headers.get("Retry-After"), datetime.now(timezone.utc))
            if wait == 0:  # so by a date of a clock that is behind ours; asking on and on at once is no answer to it
                wait = at_once = min(2 * at_once or SHORTEST_WAIT_SECONDS, DEFAULT_WAIT_SECONDS)
    raise RetellUnavailable("Retell asks to wait for longer than it knows the key of a call; tried again later")


async def _leave_429_to_us(response: httpx.Response) -> None:
    """The SDK would try again by itself, and too early if the API asks it to wait for more than a minute."""
    if response.status_code == 429:
        response.headers["x-should-retry"] = "false"


@contextmanager
def _in_our_words(*, once: bool = False) -> Iterator[None]:
    """Turn the SDK's errors into those above, except for too many requests. ``once``: the request has no key."""
    import httpx
    import retell

    unanswered = AnswerLost if once else RetellUnavailable
    try:
        yield
    except (retell.BadRequestError, retell.UnprocessableEntityError) as error:
        raise RequestRefused(reason(error)) from None
    except (retell.AuthenticationError, retell.PermissionDeniedError) as error:
        raise ConfigError(f"Retell refuses RETELL_API_KEY: {reason(error)}") from None
    except retell.RateLimitError:
        raise
    except retell.APIStatusError as error:
        if error.status_code in (402, 404):
            hint = "look at the account and at RETELL_BASE_URL"
            raise ConfigError(f"Retell answers {error.status_code}: {reason(error)}; {hint}") from None
        raise unanswered(f"Retell answers {error.status_code}: {reason(error)}") from None
    except ValueError as error:  # also of broken JSON
        hint = "look at RETELL_BASE_URL, and at proxies in between"
        raise unanswered(f"the answer is not one of Retell's ({error}); {hint}") from None
    except retell.APIConnectionError as error:
        if isinstance(error.__cause__, httpx.UnsupportedProtocol):
            raise ConfigError("RETELL_BASE_URL is no URL of an API: it begins with https://") from None
        lost = RetellUnavailable if _never_arrived(error) else unanswered
        raise lost(f"Retell does not answer: {error.__cause__ or error}") from None


def _never_arrived(error: Exception) -> bool:
    """Whether the request was not even sent: there was no connection."""
    import httpx

    return isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def seconds_to_wait(retry_after: str | None, now: datetime) -> float:
    """What the header ``Retry-After`` asks for, seconds or a date; `DEFAULT_WAIT_SECONDS` where it is not usable."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after or "")
        except ValueError:
            return DEFAULT_WAIT_SECONDS
        seconds = ((date if date.tzinfo else date.replace(tzinfo=timezone.utc)) - now).total_seconds()
    return min(max(0.0, seconds), LONGEST_WAIT_SECONDS)


def reason(error: APIStatusError) -> str:
    """What the API said, in one short line."""
    body = error.body
    message = body.get("message") or body.get("error_message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split())[:200]
