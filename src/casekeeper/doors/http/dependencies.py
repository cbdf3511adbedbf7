"""What routes are given: the server's parts, the caller, and how a call is asked and answered."""

import inspect
import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from casekeeper.doors.cookies import Cookies
from casekeeper.doors.http.envelope import Envelope, Json, Status, answer
from casekeeper.doors.http.problems import answer_to
from casekeeper.doors.inbound import authenticated, must_be_caller, sent_request_id
from casekeeper.errors import CasekeeperError, TokenMissing
from casekeeper.execution.service import SessionService
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_request_id
from casekeeper.journal.events import Failure
from casekeeper.journal.requests import Ask, Body
from casekeeper.server import Server

_CALLER = "casekeeper.caller"
_NOT_JSON = {
    "type": "json_invalid",
    "loc": ("body",),
    "msg": "must be JSON, sent with the header Content-Type: application/json",
}
# Numbers that may be too large for a float.
_HUGE = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}[.eE]")


def get_session_service(request: Request) -> SessionService:
    """The five verbs of sessions."""
    return request.app.state.server.sessions


class Inbound(Request):
    """A call as it came in: Starlette's request with the server, the caller, and how it is asked and answered.

    A route that names it as a parameter is given it directly; dependencies of FastAPI would be solved anew for
    every call, which costs more than some of the calls.
    """

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                body = await self.body()
                self._json = from_json(body, allow_inf_nan=False)
                if _HUGE.search(body):
                    # The quick parser makes an infinity of 1e999, and JSON could not give it back.
                    json.loads(body, parse_float=_finite)
            except ValueError as error:
                problem = {"type": "json_invalid", "loc": ("body",), "msg": f"is not valid JSON: {error}"}
                raise RequestValidationError([problem]) from error
        return self._json

    @property
    def server(self) -> Server:
        """The server behind this application."""
        return self.app.state.server

    @property
    def browser(self) -> Cookies:
        """The cookies of this server's browsers."""
        return Cookies(self.server)

    @property
    def caller(self) -> Principal:
        """Who calls.

        Raises:
            TokenMissing: The route is not behind WHO.
        """
        if self.known_caller is None:
            raise TokenMissing
        return self.known_caller

    @property
    def known_caller(self) -> Principal | None:
        """Who calls, where the route asked for it."""
        return self.scope.get(_CALLER)

    def ask(self, body: Envelope[Any]) -> Ask:
        """The call as idempotency sees it.

        Raises:
            UserMismatch: `user_id` is not the caller.
            ArgumentsInvalid: `request_id` and `Idempotency-Key` differ, or the header is ill-formed.
        """
        sent = sent_request_id(self.headers, body.request_id)
        must_be_caller(body.user_id, self.known_caller)
        return self.ask_about(sent, Body.of_command(body.payload))

    def ask_about(self, sent: str | None, asked: Body) -> Ask:
        """Likewise, where the body is not an envelope."""
        caller = self.known_caller
        request_id = self.state.request_id = sent or new_request_id()
        user_id = caller.user_id if caller else ""
        repeatable = sent is not None and caller is not None
        return Ask(user_id, self.scope["path"], request_id, asked, is_repeatable=repeatable)

    def answer(
        self,
        payload: Any,
        body: Envelope[Any] | None = None,
        *,
        repeated: bool = False,
        status: Status = "completed",
        error: Failure | None = None,
    ) -> Json:
        """The answer in its envelope."""
        request_id = getattr(self.state, "request_id", None) or new_request_id()
        return answer(
            request_id=request_id,
            payload=payload,
            now=self.server.clock(),
            status=status,
            error=error,
            metadata=body.metadata if body else None,
            repeated=repeated,
        )


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"the number {number[:20]} is too large")
    return value


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class OpenRoute(APIRoute):
    """A route that needs no caller.

    A handler that takes an envelope and the call, `(body: Envelope[…], door: Inbound)`, is called straight away.
    FastAPI describes such a route, but its machinery for dependencies, which none of them has, would cost more than
    most calls; any other handler goes through it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        self.is_straight = list(inspect.signature(endpoint).parameters) == ["body", "door"]
        if self.is_straight:
            self.app = self._straight(endpoint, get_type_hints(endpoint)["body"])

    def get_route_handler(self) -> Handler:
        """FastAPI's handler on an `Inbound`."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            door = Inbound(request.scope, request.receive)
            await self.admit(door)
            try:
                return await handler(door)
            except HTTPException as error:
                # FastAPI makes a bare 400 of all that goes wrong while it reads a body; the cause names what it was.
                if isinstance(error.__cause__, CasekeeperError | RequestValidationError):
                    raise error.__cause__ from None
                raise

        return handle

    async def admit(self, door: Inbound) -> None:
        """What must hold before anything else of the request is read: nothing here."""

    def _straight(self, endpoint: Callable[..., Any], envelope: Any) -> ASGIApp:
        adapter: TypeAdapter[Envelope[Any]] = TypeAdapter(envelope)

        async def answered(door: Inbound) -> Response:
            await self.admit(door)
            if not _is_json(door.headers.get("content-type", "")):
                raise RequestValidationError([_NOT_JSON])
            value = await door.json()
            try:
                body = adapter.validate_python(value)
            except ValidationError as error:
                raise RequestValidationError(
                    error.errors(include_url=False, include_context=False)
                ) from error
            return await endpoint(body, door)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            door = Inbound(scope, receive, send)
            try:
                response = await answered(door)
            except Exception as error:
                response = answer_to(error, door)
            await response(scope, receive, send)

        return app


class GuardedRoute(OpenRoute):
    """A route behind WHO: the token is checked before anything else of the request is read."""

    async def admit(self, door: Inbound) -> None:
        """Authenticate the caller."""
        door.scope[_CALLER] = await authenticated(door.server, door)


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    # RFC 6839 §3.1: whatever ends in `+json` can be read as JSON.
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
