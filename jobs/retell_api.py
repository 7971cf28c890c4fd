"""Retell's API as the campaign jobs use it: the official client, several requests in flight, errors in one's own words.

The client is asynchronous, in an event loop that runs only while a method of `RetellApi` does, in the thread that calls
it. So what is in flight ends at once when a job is stopped, by its ceiling too: a thread that waits for an answer would
go on. Nothing in here knows the database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rqmem.errors import ConfigError, RqmemError

if TYPE_CHECKING:
    from retell import APIStatusError

API_RETRIES = 5  # given for each request, since the SDK makes none for calls
PAGE = 1000
DEFAULT_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 600.0

T = TypeVar("T")


class RequestRefused(Exception):
    """The API refuses this request as it stands, and has done nothing."""


class RetellUnavailable(RqmemError):
    """The API does not answer, or not sensibly. What was asked for has not been done, or may be asked for again."""


class AnswerLost(RetellUnavailable):
    """Nobody knows whether the API has done what it was asked for, and asked again it might do it twice."""


class ListedCall(NamedTuple):
    """A call as the API lists it; ``reason``: why it was disconnected."""

    call_id: str
    status: str
    reason: str | None
    metadata: dict[str, Any]


class RetellApi:
    """The API, as a context manager. Methods raise `ConfigError` where it refuses the key or the account.

    As long as the API says that it is asked too often they wait as told, and ask again: only the job's own time limit
    ends that. The client reads RETELL_API_KEY and RETELL_BASE_URL.

    Args:
        retries: of a request that got no sensible answer, by the SDK, with back-off; not of batches.

    Raises:
        ConfigError: RETELL_API_KEY is not set.
    """

    def __init__(self, retries: int = API_RETRIES) -> None:
        if not os.environ.get("RETELL_API_KEY"):
            raise ConfigError("RETELL_API_KEY is not set: give the worker the key of your Retell account")
        from retell import AsyncRetell  # 70 MB: only where calls are made

        self._loop = asyncio.Runner()
        self._client = AsyncRetell()
        self._retries = retries

    def __enter__(self) -> RetellApi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def each(self, items: Collection[T], work: Callable[[T], Awaitable[None]], in_flight: int) -> None:
        """Do ``work`` for each of ``items``, at most ``in_flight`` at a time. The first error ends it.

        What is in flight then is cancelled, and has been when this returns; but for what is raised from outside, by a
        signal: then it is cancelled when the context is left.
        """
        self._loop.run(self._each(items, work, in_flight))

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

    async def phone_call(self, **request: Any) -> str:
        """Make a call, and return its id. With an ``idempotency_key`` it is made once, however often it is asked for.

        Raises:
            RequestRefused: the API refuses this call.
            RetellUnavailable: it does not answer, also when tried again.
        """
        create = self._client.call.create_phone_call
        made = await _as_often_as_allowed(lambda: create(**request, max_retries=self._retries))
        return made.call_id

    def batch_call(self, **request: Any) -> str:
        """Have the API make all calls of a batch, and return the batch's id. There is no idempotency key for it.

        Raises:
            RequestRefused: the API refuses the batch as a whole.
            AnswerLost: it may have accepted it.
            RetellUnavailable: it could not be reached.
        """
        create = self._client.batch_call.create_batch_call
        asked = _as_often_as_allowed(lambda: create(**request, max_retries=0), once=True)
        return self._loop.run(asked).batch_call_id

    def calls(self, key: str, values: Collection[str]) -> list[ListedCall]:
        """The calls that the API knows with one of ``values`` under ``key`` in their metadata.

        Raises `RetellUnavailable`.
        """
        return self._loop.run(self._calls(key, values)) if values else []

    async def _calls(self, key: str, values: Collection[str]) -> list[ListedCall]:
        wanted: Any = {"metadata": [{"key": key, "type": "enum", "op": "in", "value": list(values)}]}
        found: list[ListedCall] = []
        next_page: dict[str, Any] = {}
        while True:
            request = {"filter_criteria": wanted, "limit": PAGE, "sort_order": "ascending", **next_page}
            page = await _as_often_as_allowed(partial(self._client.call.list, **request, max_retries=self._retries))
            for call in page.items:
                metadata = call.metadata if isinstance(call.metadata, dict) else {}
                found.append(ListedCall(call.call_id, call.call_status, call.disconnection_reason, metadata))
            if not page.has_more or page.pagination_key is None:
                return found
            next_page = {"pagination_key": page.pagination_key}

    def has_free_lines(self) -> bool:
        """Whether the account could make one more call now; also what it costs to ask whether the key is any good.

        Raises `RetellUnavailable`.
        """
        retrieve = self._client.concurrency.retrieve
        lines = self._loop.run(_as_often_as_allowed(lambda: retrieve(max_retries=self._retries)))
        return (lines.current_concurrency or 0) < (lines.concurrency_limit or 0)


async def _as_often_as_allowed(ask: Callable[[], Awaitable[T]], *, once: bool = False) -> T:
    """Ask; as long as the API says that it is asked too often, wait as told and ask again."""
    from retell import RateLimitError

    while True:
        try:
            with _in_our_words(once=once):
                return await ask()
        except RateLimitError as error:
            await asyncio.sleep(seconds_to_wait(error.response.headers.get("Retry-After")))


@contextmanager
def _in_our_words(*, once: bool = False) -> Iterator[None]:
    """Errors of the SDK as those above; of being asked too often as they are. ``once``: what is asked has no key."""
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
    except retell.APIConnectionError as error:
        lost = RetellUnavailable if _never_arrived(error) else unanswered
        raise lost(f"Retell does not answer: {error.__cause__ or error}") from None


def _never_arrived(error: Exception) -> bool:
    """Whether the request was not even sent: there was no connection."""
    import httpx

    return isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def seconds_to_wait(retry_after: str | None) -> float:
    """What the header ``Retry-After`` asks for, in seconds; `DEFAULT_WAIT_SECONDS` where it says nothing usable."""
    try:
        return min(max(0.0, float(retry_after or "")), LONGEST_WAIT_SECONDS)
    except ValueError:
        return DEFAULT_WAIT_SECONDS


def reason(error: APIStatusError) -> str:
    """What the API said, in one short line."""
    body = error.body
    message = body.get("message") or body.get("error_message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split())[:200]
