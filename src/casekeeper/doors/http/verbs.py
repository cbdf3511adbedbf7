"""How a POST route is declared: its path says its operation id and tag, its result what the envelope holds.

Answers are written by `doors/http/envelope.py`, not by FastAPI, so their models are looked at only when somebody asks for
the OpenAPI document: building them for every start would cost more than the rest of the door.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from casekeeper.doors.http.envelope import Answer, Json
from casekeeper.values import value

H = TypeVar("H", bound=Callable[..., Awaitable[Response]])

EVENT_STREAM = "text/event-stream"
_SCHEMAS = "#/components/schemas/"


@value
class Verb:
    """What a route answers with."""

    result: Any
    may_wait: bool
    streams: bool


VERBS: dict[str, Verb] = {}
"""By operation id."""


def verb(
    router: APIRouter,
    path: str,
    result: Any,
    *,
    may_wait: bool = False,
    streams: bool = False,
    openapi_extra: dict[str, Any] | None = None,
) -> Callable[[H], H]:
    """Declare a route that answers with `result` in the envelope.

    `may_wait`: also with 202, where it has not ended. `streams`: also as server-sent events, on request.
    """

    def declare(handler: H) -> H:
        _, _, tag, name = (router.prefix + path).split("/")
        operation_id = f"{tag}_{name}"
        VERBS[operation_id] = Verb(result, may_wait, streams)
        router.add_api_route(
            path,
            handler,
            methods=["POST"],
            operation_id=operation_id,
            response_model=None,
            response_class=Json,
            tags=[tag],
            openapi_extra=openapi_extra,
        )
        return handler

    return declare


def describe_answer(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add to an operation of the OpenAPI document what it answers with."""
    declared = VERBS.get(operation["operationId"])
    if declared is None:
        return
    envelope: Any = Answer
    adapter: TypeAdapter[Any] = TypeAdapter(envelope[declared.result])
    schema = _linked(adapter.json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization"))
    schemas.update(schema.pop("$defs", {}))
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    operation["responses"]["200"] = {"description": "Done.", "content": dict(content)}
    if declared.streams:
        operation["responses"]["200"]["content"][EVENT_STREAM] = {"schema": {"type": "string"}}
    if declared.may_wait:
        operation["responses"]["202"] = {"description": "It has not ended.", "content": content}


def _linked(node: Any) -> Any:
    """Stored JSON is described by the name of its schema alone; here the name becomes a link."""
    if isinstance(node, dict):
        known = cast("dict[str, Any]", node)
        if name := known.get("x-schema"):
            return {"$ref": _SCHEMAS + name}
        return {key: _linked(value) for key, value in known.items()}
    if isinstance(node, list):
        return [_linked(value) for value in cast("list[Any]", node)]
    return node
