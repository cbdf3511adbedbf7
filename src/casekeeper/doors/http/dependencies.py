"""The HTTP request as routes get it: the server's parts, the caller and the body; and the routes before and behind WHO."""

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from casekeeper.doors.cookies import Cookies
from casekeeper.doors.http.envelope import Envelope, Json, Status, answer
from casekeeper.doors.inbound import authenticated, must_be_caller, sent_request_id
from casekeeper.errors import CasekeeperError, TokenMissing
from casekeeper.execution.service import SessionService
from casekeeper.execution.status import Executed
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_request_id
from casekeeper.journal.events import Failure
from casekeeper.journal.requests import Ask, Body
from casekeeper.server import Server
from casekeeper.verbs.verb import Verb

_CALLER = "casekeeper.caller"
# Numbers that may be too large for a float.
_HUGE = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}[.eE]")


def get_session_service(request: Request) -> SessionService:
    """The five verbs of sessions."""
    return request.app.state.server.execution.sessions


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
        caller = self.scope.get(_CALLER)
        if caller is None:
            raise TokenMissing
        return caller

    async def authenticate(self) -> None:
        """Find out who calls, before anything else of the call is looked at."""
        self.scope[_CALLER] = await authenticated(self.server, self)

    def begin(self, body: Envelope[Any] | None = None) -> bool:
        """Take the call's request id, or make one; returns whether it was sent.

        Raises:
            UserMismatch: `user_id` is not the caller.
            ArgumentsInvalid: `request_id` and `Idempotency-Key` differ, or the header is ill-formed.
        """
        sent = sent_request_id(self.headers, body.request_id if body else None)
        if body is not None:
            must_be_caller(body.user_id, self.scope.get(_CALLER))
        self.state.request_id = sent or new_request_id()
        return sent is not None

    def ask(self, verb: Verb, body: Envelope[Any]) -> Ask:
        """The call as idempotency sees it; raises what `begin` does."""
        return self.ask_about(verb, Body.of_command(body.payload), body)

    def ask_about(self, verb: Verb, asked: Body, body: Envelope[Any] | None = None) -> Ask:
        """Likewise, where the body is not an envelope."""
        sent = self.begin(body)
        user_id, request_id = self.caller.user_id, self.state.request_id
        return Ask(user_id, verb.claims, request_id, asked, is_repeatable=sent)

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

    def executed(self, executed: Executed, body: Envelope[Any], *, repeated: bool = False) -> Json:
        """The answer about an operation: how it ended, or that it has not."""
        return self.answer(executed, body, repeated=repeated, status=executed.status, error=executed.error)


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"the number {number[:20]} is too large")
    return value


class OpenRoute(APIRoute):
    """A route of FastAPI's that needs no caller, on an `Inbound`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
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


class GuardedRoute(OpenRoute):
    """A route behind WHO."""

    async def admit(self, door: Inbound) -> None:
        """Authenticate the caller."""
        await door.authenticate()
