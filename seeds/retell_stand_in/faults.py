"""The faults that the stand-in for Retell shows on purpose, as one checked value, and its rate limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from rqmem.text import did_you_mean
from seeds.retell_stand_in.requests import first_words

ErrorMode = Literal["before", "after", "drop"]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_ROUNDING = 1e-9


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Faults:
    """Every Nth is counted from the moment the faults were set, over requests that are valid; 0 is never.

    error_mode says what a fault is: ``before``: no call is made, 500. ``after``: the call is made
    and the answer is a 500. ``drop``: the call is made and the connection closed without an answer.
    After the last two only an idempotency key keeps a retry from calling twice, and for a batch nothing does.
    """

    rate_limit: Annotated[Amount, "Requests per second, and as many at once; above it 429 with Retry-After."] = 0.0
    error_every: Annotated[Count, "Each Nth valid request goes wrong."] = 0
    error_mode: Annotated[ErrorMode, "500 before a call is made, 500 after, or after it no answer at all."] = "before"
    latency_ms: Annotated[Amount, "Hold back every answer."] = 0.0
    slow_every: Annotated[Count, "Hold back each Nth answer by --slow-ms."] = 0
    slow_ms: Annotated[Amount, "Milliseconds that such an answer is held back."] = 0.0
    unanswered_every: Annotated[Count, "Nobody picks up at each Nth call."] = 0
    refused_number: Annotated[str, "A number that is not to be called, as one on the account's do-not-call list."] = ""
    busy: Annotated[bool, "All lines are taken: batches are accepted, and their calls wait."] = False
    reserved_lines: Annotated[Count, "Of 20, for calls that come in: those of a batch never get them."] = 0
    changing_lines: Annotated[Count, "Of a busy account's: one call has ended, the next has not begun."] = 0

    @model_validator(mode="after")
    def _slow_answers(self) -> Faults:
        if bool(self.slow_every) != bool(self.slow_ms):
            raise PydanticCustomError("half", "slow_every and slow_ms need each other")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Faults:
        """What is not named has its default. Raises ValueError, in one line."""
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                hint = did_you_mean(name, known, f"known are {', '.join(known)}")
                raise ValueError(f"unknown fault {name!r}; {hint}")
        try:
            return cls(**values)
        except ValidationError as error:
            raise ValueError(first_words(error)) from None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what `parse` takes."""
        return asdict(self)

    def fails(self, nth: int) -> bool:
        """Whether the nth valid request is one that goes wrong."""
        return self.error_every > 0 and nth % self.error_every == 0

    def answered(self, nth: int) -> bool:
        """Whether somebody answers the nth call."""
        return self.unanswered_every == 0 or nth % self.unanswered_every != 0

    def delay(self, nth: int) -> float:
        """Seconds that the answer to the nth valid request is held back."""
        slow = self.slow_every > 0 and nth % self.slow_every == 0
        return (self.latency_ms + (self.slow_ms if slow else 0.0)) / 1000


@dataclasses.dataclass
class TokenBucket:
    """A number of requests per second, with a second's worth (at least one) at once. A rate of 0 is no limit."""

    rate: float
    tokens: float = field(init=False)
    filled_at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.tokens = self.size

    @property
    def size(self) -> float:
        return max(1.0, self.rate)

    def take(self, now: float) -> float:
        """Take a token: 0.0, or, when there is none, the seconds until there will be one."""
        if not self.rate:
            return 0.0
        since = 0.0 if self.filled_at is None else max(0.0, now - self.filled_at)
        self.tokens = min(self.size, self.tokens + since * self.rate)
        self.filled_at = now
        if self.tokens < 1.0 - _ROUNDING:  # else a wait of 1e-15 s, which moves no clock
            return (1.0 - self.tokens) / self.rate
        self.tokens = max(0.0, self.tokens - 1.0)
        return 0.0
