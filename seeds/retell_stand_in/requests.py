"""What Retell accepts in a request body: checks without state, no clock and no I/O.

Covers the two endpoints as retell-sdk 6 calls them. Fields that are not known are ignored, as HTTP
APIs commonly do; known ones must have their type.
"""

from __future__ import annotations

import json
from typing import Any

from seeds.phone_numbers import is_e164


class Refused(Exception):
    """A request that gets no call: HTTP status, a slug to count it under, and one line for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


# Optional fields of a call, by what they must be in JSON.
_CALL_FIELDS: dict[str, tuple[type, ...]] = {
    "agent_override": (dict,),
    "custom_sip_headers": (dict,),
    "honor_internal_dnc": (bool,),
    "idempotency_key": (str,),
    "ignore_e164_validation": (bool,),
    "metadata": (dict,),
    "override_agent_id": (str,),
    "override_agent_version": (str, int),
    "retell_llm_dynamic_variables": (dict,),
}
_BATCH_FIELDS: dict[str, tuple[type, ...]] = {
    "call_time_window": (dict,),
    "name": (str,),
    "reserved_concurrency": (int,),
    "trigger_timestamp": (int, float),
}
_TEXT_MAPS = ("custom_sip_headers", "retell_llm_dynamic_variables")
_JSON_NAMES = {
    dict: "an object",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "not_json", "Request body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refused(400, "not_json", "Request body must be a JSON object.")
    return value


def check_phone_call(request: dict[str, Any]) -> None:
    """A request to ``/v2/create-phone-call``."""
    _check_types(request, _CALL_FIELDS)
    _check_number(request, "from_number", any_form=request.get("ignore_e164_validation", False))
    _check_number(request, "to_number")
    if request.get("idempotency_key") == "":
        raise Refused(400, "wrong_type", "idempotency_key must not be empty.")


def check_batch_call(request: dict[str, Any]) -> None:
    """A request to ``/create-batch-call``: wholly right, or refused as a whole."""
    _check_types(request, _BATCH_FIELDS)
    _check_number(request, "from_number")
    tasks = request.get("tasks")
    if tasks is None:
        raise Refused(400, "missing_field", "tasks is required.")
    if not isinstance(tasks, list) or not tasks:
        raise Refused(400, "wrong_type", "tasks must be an array with at least one task.")
    for index, task in enumerate(tasks):
        where = f"tasks[{index}]"
        if not isinstance(task, dict):
            raise Refused(400, "wrong_type", f"{where} must be an object.")
        _check_types(task, _CALL_FIELDS, f"{where}.")
        _check_number(task, "to_number", f"{where}.")


def _check_types(request: dict[str, Any], fields: dict[str, tuple[type, ...]], where: str = "") -> None:
    for name, types in fields.items():
        if name in request and not _is_one_of(request[name], types):
            names = " or ".join(_JSON_NAMES[type_] for type_ in types)
            raise Refused(400, "wrong_type", f"{where}{name} must be {names}.")
    for name in _TEXT_MAPS:
        if not all(isinstance(value, str) for value in request.get(name, {}).values()):
            raise Refused(400, "wrong_type", f"{where}{name} must map strings to strings.")


def _is_one_of(value: object, types: tuple[type, ...]) -> bool:
    """isinstance as JSON sees it: ``true`` is no number."""
    return isinstance(value, types) and (not isinstance(value, bool) or bool in types)


def _check_number(request: dict[str, Any], name: str, where: str = "", any_form: bool = False) -> None:
    number = request.get(name)
    if number is None:
        raise Refused(400, "missing_field", f"{where}{name} is required.")
    if not isinstance(number, str):
        raise Refused(400, "wrong_type", f"{where}{name} must be a string.")
    if not any_form and not is_e164(number):
        raise Refused(400, "not_e164", f"{where}{name} must be in E.164 format, got {_quoted(number)}.")


def _quoted(text: str) -> str:
    """On one line, and short, whatever it holds."""
    return json.dumps(text if len(text) <= 40 else text[:40] + "...")
