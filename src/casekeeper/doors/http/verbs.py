"""The verbs as routes: the one place where HTTP binds each row of the table to what does it.

Answers are written by `envelope.py`, commands are read by the model that the row names; both are loaded with the first
call, since building them for every start would cost more than the rest of the door.
"""

from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property
from operator import attrgetter
from typing import Any

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from casekeeper.doors.http import browser, sessions
from casekeeper.doors.http.dependencies import Inbound
from casekeeper.doors.http.envelope import Envelope
from casekeeper.doors.http.problems import answer_to
from casekeeper.verbs import VERBS
from casekeeper.verbs.verb import Verb

Handler = Callable[[Inbound, Envelope[Any]], Awaitable[Response]]

_OWN: dict[str, Handler] = {
    "sessions/execute": sessions.execute,
    "auth/session": browser.log_in,
    "auth/logout": browser.log_out,
}
"""What HTTP answers in a way of its own: streams, and cookies."""

_NOT_JSON = {
    "type": "json_invalid",
    "loc": ("body",),
    "msg": "must be JSON, sent with the header Content-Type: application/json",
}


def verb_routes() -> Iterator[Route]:
    """A route for each verb whose body is the envelope."""
    for verb in VERBS.values():
        if not verb.takes_bytes:
            yield Route(verb.path, Endpoint(verb), methods=["POST"], name=verb.operation_id)


class Endpoint:
    """A verb as an ASGI application.

    FastAPI describes it, but its machinery for dependencies, which no verb has, would cost more than most calls.
    """

    def __init__(self, verb: Verb) -> None:
        self._verb = verb
        self._handle = _OWN.get(verb.name) or _handler(verb)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call, or say why not."""
        door = Inbound(scope, receive, send)
        try:
            response = await self._answered(door)
        except Exception as error:
            response = answer_to(error, door)
        await response(scope, receive, send)

    async def _answered(self, door: Inbound) -> Response:
        if not self._verb.is_open:
            await door.authenticate()
        if not _is_json(door.headers.get("content-type", "")):
            raise RequestValidationError([_NOT_JSON])
        value = await door.json()
        try:
            body = self._envelope.validate_python(value)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False, include_context=False)) from error
        return await self._handle(door, body)

    @cached_property
    def _envelope(self) -> TypeAdapter[Envelope[Any]]:
        return TypeAdapter(envelope_of(self._verb))


def envelope_of(verb: Verb) -> Any:
    """What a verb's request carries, as a type."""
    return Envelope[verb.command_type()]


def _handler(verb: Verb) -> Handler:
    method = attrgetter(verb.calls)

    async def opens(door: Inbound, body: Envelope[Any]) -> Response:
        door.begin(body)
        return door.answer(await method(door.server)(body.payload), body)

    async def reads(door: Inbound, body: Envelope[Any]) -> Response:
        door.begin(body)
        return door.answer(await method(door.server)(door.caller, body.payload), body)

    async def reports(door: Inbound, body: Envelope[Any]) -> Response:
        door.begin(body)
        return door.executed(await method(door.server)(door.caller, body.payload), body)

    async def changes(door: Inbound, body: Envelope[Any]) -> Response:
        ask = door.ask(verb, body)
        done, repeated = await method(door.server)(door.caller, body.payload, ask)
        return door.answer(done, body, repeated=repeated)

    if verb.claims:
        return changes
    if verb.may_wait:
        return reports
    return opens if verb.is_open else reads


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    # RFC 6839 §3.1: whatever ends in `+json` can be read as JSON.
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
