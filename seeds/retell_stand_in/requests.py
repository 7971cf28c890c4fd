"""What Retell accepts in a request body, as pydantic models. No clock and no I/O.

They cover the endpoints as retell-sdk 6 calls them. Fields that are not known are ignored, as HTTP APIs commonly do;
known ones must have their type. A filter of calls that is not known is refused.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from seeds.phone_numbers import is_e164


class Refused(Exception):
    """A request that gets no call: the HTTP status, a reason to count it under, and one line for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def _e164(number: str, info: ValidationInfo) -> str:
    if not is_e164(number) and not (info.field_name == "from_number" and info.data.get("ignore_e164_validation")):
        got = json.dumps(number if len(number) <= 40 else f"{number[:40]}...")
        raise PydanticCustomError("not_e164", "must be in E.164 format, got {got}", {"got": got})
    return number


Number = Annotated[str, AfterValidator(_e164)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True)


class Task(_Request):
    to_number: Number
    agent_override: dict[str, Any] = {}
    custom_sip_headers: dict[str, str] = {}
    honor_internal_dnc: bool = False
    idempotency_key: str = Field("-", min_length=1)
    ignore_e164_validation: bool = False
    metadata: dict[str, Any] = {}
    override_agent_id: str = ""
    override_agent_version: str | int = 0
    retell_llm_dynamic_variables: dict[str, str] = {}


class PhoneCall(Task):
    from_number: Number


class BatchCall(_Request):
    """A request to ``/create-batch-call``: wholly right, or refused as a whole."""

    from_number: Number
    tasks: list[Task] = Field(min_length=1)
    call_time_window: dict[str, Any] = {}
    name: str = ""
    reserved_concurrency: int = 0
    trigger_timestamp: int | float = 0


class TextFilter(_Request):
    """A text that is equal to a value (``string``, ``eq``) or to one of some (``enum``, ``in``)."""

    type: Literal["string", "enum"]
    op: Literal["eq", "in"]
    value: str | list[str]

    @property
    def values(self) -> list[str]:
        return [self.value] if isinstance(self.value, str) else self.value


class MetadataFilter(TextFilter):
    key: str


class Filters(_Request, extra="forbid"):
    """Which calls are listed: those for which all of these are true."""

    metadata: list[MetadataFilter] = []
    batch_call_id: TextFilter | None = None
    call_id: TextFilter | None = None


class ListCalls(_Request):
    limit: int = Field(50, ge=1, le=1000)
    skip: int = Field(0, ge=0)
    sort_order: Literal["ascending", "descending"] = "descending"
    pagination_key: str | None = Field(None, pattern="^[0-9]+$")
    filter_criteria: Filters = Filters()
    include_total: bool = False

    @model_validator(mode="after")
    def _begins_at_one_place(self) -> ListCalls:
        if self.skip and self.pagination_key is not None:
            raise PydanticCustomError("both", "skip and pagination_key exclude each other")
        return self


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises `Refused`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "not_json", "Request body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refused(400, "not_json", "Request body must be a JSON object.")
    return value


def check(model: type[_Request], body: bytes) -> Any:
    """The body, which is a JSON object, as a request of this kind. Raises `Refused`, with the first thing wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing" or first["input"] is None:
            raise Refused(400, "missing_field", f"{_where(first)} is required.") from None
        if first["type"] == "not_e164":
            raise Refused(400, "not_e164", f"{_where(first)} {first['msg']}.") from None
        raise Refused(400, "wrong_type", f"{first_words(error)}.") from None


def first_words(error: ValidationError) -> str:
    """The first thing that is wrong, and where, in one line."""
    first = error.errors()[0]
    return f"{_where(first)}: {first['msg']}".removeprefix(": ")


def _where(error: ErrorDetails) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])[1:]
