"""What routes are given: the server's parts, the caller, and how a call is asked and answered."""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import from_json

from casekeeper.api.envelope import Envelope, Json, Status, answer
from casekeeper.errors import ArgumentsInvalid, FieldError, UserMismatch
from casekeeper.execution.service import SessionService
from casekeeper.identity.principal import Principal
from casekeeper.ids import REQUEST_ID, new_request_id
from casekeeper.journal.events import Failure
from casekeeper.journal.requests import Ask
from casekeeper.server import Server

_REQUEST_ID = re.compile(REQUEST_ID)
_BEARER = "bearer "


async def get_server(request: Request) -> Server:
    """The server behind this application."""
    return request.app.state.server


async def get_session_service(request: Request) -> SessionService:
    """The five verbs."""
    return request.app.state.server.sessions


async def get_caller(request: Request) -> Principal:
    """The caller, authenticated before the body was looked at."""
    return request.state.caller


Wired = Annotated[Server, Depends(get_server)]
Sessions = Annotated[SessionService, Depends(get_session_service)]
Caller = Annotated[Principal, Depends(get_caller)]


class StrictRequest(Request):
    """Parses JSON strictly: no NaN, no lone surrogates, no endless nesting, big integers kept whole."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                problem = {"type": "json_invalid", "loc": ("body",), "msg": f"is not valid JSON: {error}"}
                raise RequestValidationError([problem]) from error
        return self._json


class OpenRoute(APIRoute):
    """A route that needs no caller."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler on a strict request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


class GuardedRoute(APIRoute):
    """A route behind WHO: the token is checked before anything else of the request is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the authenticator."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            server: Server = request.app.state.server
            request.state.caller = await server.authenticator.authenticate(_bearer(request))
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


def _bearer(request: Request) -> str | None:
    value = request.headers.get("authorization", "")
    return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else None


@dataclass(frozen=True, slots=True)
class Inbound:
    """A call as it came in: its route, ids and caller."""

    request: Request
    server: Server

    def ask(self, body: Envelope[Any], caller: Principal | None = None) -> Ask:
        """The call as idempotency sees it.

        Raises:
            UserMismatch: `user_id` is not the caller.
            ArgumentsInvalid: `request_id` and `Idempotency-Key` differ, or the header is ill-formed.
        """
        request_id = self.request_id(body.request_id)
        if caller is not None and body.user_id not in (None, caller.user_id):
            raise UserMismatch
        if request_id is None:
            made = self.request.state.request_id = new_request_id()
            return Ask(caller.user_id if caller else "", self.request.url.path, made)
        self.request.state.request_id = request_id
        payload = body.payload.model_dump_json() if isinstance(body.payload, BaseModel) else ""
        return Ask(
            caller.user_id if caller else "",
            self.request.url.path,
            request_id,
            payload.encode(),
            is_repeatable=caller is not None,
        )

    def request_id(self, sent: str | None) -> str | None:
        """The request id of body and header, which must agree."""
        header = self.request.headers.get("idempotency-key")
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
        request_id = getattr(self.request.state, "request_id", None) or new_request_id()
        return answer(
            request_id=request_id,
            payload=payload,
            now=self.server.clock(),
            status=status,
            error=error,
            metadata=body.metadata if body else None,
            repeated=repeated,
        )


async def get_inbound(request: Request) -> Inbound:
    """The call that is being answered."""
    return Inbound(request, request.app.state.server)


Door = Annotated[Inbound, Depends(get_inbound)]
