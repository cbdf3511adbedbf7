"""The OpenAPI document: FastAPI's, with the verbs, the refusals that all routes share, and worked examples."""

from inspect import Parameter, Signature
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from casekeeper.doors.http.dependencies import GuardedRoute
from casekeeper.doors.http.envelope import Answer, Json
from casekeeper.doors.http.problems import MEDIA_TYPE
from casekeeper.doors.http.sse import EVENT_STREAM
from casekeeper.doors.http.verbs import envelope_of
from casekeeper.doors.inbound import Problem
from casekeeper.journal.events import ExecutionEvent
from casekeeper.verbs import VERBS
from casekeeper.verbs.verb import Example, Verb

_SCHEMAS = "#/components/schemas/"

_REFUSALS = {
    "401": "No believable caller.",
    "403": "The caller may not do this.",
    "404": "Missing, or hidden from the caller.",
    "405": "The route does not take this method.",
    "409": "The state does not allow it now.",
    "413": "Too large.",
    "422": "The request does not fit; `errors` names the fields.",
    "429": "Too many requests.",
    "431": "The headers are too large.",
    "500": "Something went wrong here; the incident id says where to look.",
    "503": "The store, a model or the server itself is not available.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes."""
    verbs = {verb.operation_id: verb for verb in VERBS.values()}
    routes = [*(_described(verb) for verb in verbs.values() if not verb.takes_bytes), *app.routes]
    guarded = {str(route.operation_id) for route in app.routes if isinstance(route, GuardedRoute)}
    guarded |= {name for name, verb in verbs.items() if not verb.is_open}
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, ExecutionEvent):
        schema = TypeAdapter(model).json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        # Over https; docs/identity.md tells of its other name.
        "browser": {"type": "apiKey", "in": "cookie", "name": "__Host-casekeeper"},
    }
    problem = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + "Problem"}}}
    for methods in document["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            operation["security"] = [{"token": []}, {"browser": []}] if name in guarded else []
            for status, description in _REFUSALS.items():
                operation["responses"][status] = {"description": description, "content": problem}
            if verb := verbs.get(name):
                _describe_answer(verb, operation, schemas)
                _add_examples(verb.examples, operation)
    return document


def _described(verb: Verb) -> APIRoute:
    """The route as FastAPI would have it; it is described and never called."""

    async def endpoint() -> None: ...

    body = Parameter("body", Parameter.POSITIONAL_OR_KEYWORD, annotation=envelope_of(verb))
    cast(Any, endpoint).__signature__ = Signature([body])
    return APIRoute(
        verb.path,
        endpoint,
        methods=["POST"],
        name=verb.name.rpartition("/")[2],
        operation_id=verb.operation_id,
        description=verb.summary,
        response_model=None,
        response_class=Json,
        tags=[verb.noun],
    )


def _describe_answer(verb: Verb, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    envelope: Any = Answer
    adapter: TypeAdapter[Any] = TypeAdapter(envelope[verb.result_type()])
    schema = _linked(adapter.json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization"))
    schemas.update(schema.pop("$defs", {}))
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    operation["responses"]["200"] = {"description": "Done.", "content": dict(content)}
    if verb.streams:
        operation["responses"]["200"]["content"][EVENT_STREAM] = {"schema": {"type": "string"}}
    if verb.may_wait:
        operation["responses"]["202"] = {"description": "It has not ended.", "content": content}


def _add_examples(examples: Any, operation: dict[str, Any]) -> None:
    if examples:
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {name: _written(example) for name, example in examples.items()}


def _written(example: Example) -> dict[str, Any]:
    value = {"request_id": "uuid-here", "user_id": "sam@example.com", "payload": example.payload}
    return {"summary": example.summary, "value": value}


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
