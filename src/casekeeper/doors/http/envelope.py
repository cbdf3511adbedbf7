"""The envelope of every POST, and how answers are written."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import orjson
from fastapi import Response
from pydantic import BaseModel, Field
from pydantic_core import PydanticSerializationError, to_json

from casekeeper.ids import RequestId, UserId
from casekeeper.journal.events import Failure
from casekeeper.strict import Strict

P = TypeVar("P")

Status = Literal["completed", "failed", "pending", "running"]


class Envelope(Strict, Generic[P]):
    """What a request carries."""

    request_id: RequestId | None = Field(
        default=None, description="Makes the call safe to repeat for 24 hours; a UUID is customary."
    )
    user_id: UserId | None = Field(default=None, description="When sent, it must be the caller.")
    payload: P
    metadata: dict[str, Any] | None = Field(default=None, description="Passed back, never looked at.")


class Answer(BaseModel, Generic[P]):
    """What an answer carries."""

    request_id: str
    status: Status
    payload: P
    error: Failure | None = None
    timestamp: datetime
    metadata: dict[str, Any] | None = None


class Json(Response):
    """A response whose body is JSON already."""

    media_type = "application/json"


def dumps(value: Any) -> bytes:
    """JSON of dataclasses, models and stored JSON alike; instants in UTC with `Z`."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def foreign(value: Any) -> orjson.Fragment:
    """JSON of a value that others made up: integers of any size, and null for what JSON cannot say."""
    try:
        return orjson.Fragment(to_json(value, fallback=lambda _: None, inf_nan_mode="null"))
    except (PydanticSerializationError, ValueError):
        return orjson.Fragment(b"null")


def answer(
    *,
    request_id: str,
    payload: Any,
    now: datetime,
    status: Status = "completed",
    error: Failure | None = None,
    metadata: dict[str, Any] | None = None,
    repeated: bool = False,
) -> Json:
    """The envelope around a payload."""
    body = {
        "request_id": request_id,
        "status": status,
        "payload": payload,
        "error": error,
        "timestamp": now,
        "metadata": foreign(metadata),
    }
    # Answers hold tokens and case material: no cache on the way may keep them.
    headers = {"Cache-Control": "no-store"}
    if repeated:
        headers["Idempotency-Replayed"] = "true"
    return Json(dumps(body), 202 if status in ("pending", "running") else 200, headers)


def _default(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return orjson.Fragment(value.__pydantic_serializer__.to_json(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")
