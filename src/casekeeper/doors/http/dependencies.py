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

from casekeeper.doors.http.cookies import CSRF_HEADER, Cookies
from casekeeper.doors.http.envelope import Envelope, Json, Status, answer
from casekeeper.doors.http.problems import answer_to
from casekeeper.errors import ArgumentsInvalid, CasekeeperError, FieldError, TokenMissing, UserMismatch
from casekeeper.execution.service import SessionService
from casekeeper.identity.principal import Principal
from casekeeper.ids import REQUEST_ID, new_request_id
from casekeeper.journal.events import Failure
from casekeeper.journal.requests import Ask
from casekeeper.server import Server

_REQUEST_ID = re.compile(REQUEST_ID)
_BEARER = "bearer "
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
        caller = self.known_caller
        sent = self.sent_request_id(body.request_id)
        if caller is not None and body.user_id not in (None, caller.user_id):
            raise UserMismatch
        payload = body.payload.model_dump_json().encode() if sent is not None else b""
        return self.ask_about(sent, payload)

    def ask_about(self, sent: str | None, payload: bytes) -> Ask:
        """Likewise, where the body is not an envelope."""
        caller = self.known_caller
        request_id = self.state.request_id = sent or new_request_id()
        user_id = caller.user_id if caller else ""
        repeatable = sent is not None and caller is not None
        return Ask(user_id, self.scope["path"], request_id, payload, is_repeatable=repeatable)

    def sent_request_id(self, sent: str | None) -> str | None:
        """The request id of body and header, which must agree."""
        header = self.headers.get("idempotency-key")
        if header is None:
            return sent
        if not _REQUEST_ID.fullmatch(header):
            raise ArgumentsInvalid(errors=(FieldError("Idempotency-Key", "1 to 128 of A-Z a-z 0-9 _ . : -"),))
        if sent not in (None, header):
            raise ArgumentsInvalid(
                errors=(FieldError("request_id", "differs from the header Idempotency-Key"),)
            )
        return header

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
    """A route behind WHO: the token is checked before anything else of the request is read.

    A browser's session stands in for a token where there is no `Authorization` header at all.
    """

    async def admit(self, door: Inbound) -> None:
        """Authenticate the caller.

        Raises:
            Unauthenticated: There is no believable one.
            ForeignPage: Another site's page uses a browser's session.
            CsrfTokenRejected: A browser's session would change something without its token.
        """
        header = door.headers.get("authorization")
        if header is None and (secret := door.browser.session_of(door) if "cookie" in door.headers else None):
            door.scope[_CALLER] = await _of_browser(door, secret)
        else:
            door.scope[_CALLER] = await door.server.authenticator.authenticate(_bearer(header))


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    # RFC 6839 §3.1: whatever ends in `+json` can be read as JSON.
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


async def _of_browser(door: Inbound, secret: str) -> Principal:
    door.browser.must_come_from_here(door)
    sessions = door.server.browser_sessions
    principal = await sessions.authenticate(secret)
    given = door.headers.get(CSRF_HEADER, "")
    door.browser.must_have_token(door, sessions.is_csrf_token(principal, given))
    return principal


def _bearer(value: str | None) -> str | None:
    if value is None or value[: len(_BEARER)].lower() != _BEARER:
        return None
    return value[len(_BEARER) :].strip()
