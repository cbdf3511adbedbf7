"""Exceptions to RFC 9457 problems: the only mapping there is."""

import logging
import secrets
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from casekeeper import errors as e
from casekeeper.doors.http.envelope import dumps
from casekeeper.doors.http.rates import rate_headers
from casekeeper.kinds import KINDS

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[e.CasekeeperError], int] = {
    e.HeadersTooLarge: 431,
    e.Unauthenticated: 401,
    e.Denied: 403,
    e.NotFound: 404,
    e.Gone: 410,
    e.Conflict: 409,
    e.TooLarge: 413,
    e.Invalid: 422,
    e.Limited: 429,
    e.Unavailable: 503,
}
"""By branch of the tree; the first that fits counts."""

_RETRY_AFTER_S = 2

_log = logging.getLogger("casekeeper.api")


class ProblemField(BaseModel):
    """One field that does not fit."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Stable URI of the situation.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of the situation; the end of `type`.")
    check: str | None = Field(default=None, description="Which check failed: who, where, what or admit.")
    request_id: str | None = None
    retryable: bool
    errors: list[ProblemField] = []


def status_of(error: e.CasekeeperError) -> int:
    """The HTTP status of an error."""
    return next(status for branch, status in STATUS.items() if isinstance(error, branch))


def problem(error: e.CasekeeperError, request: Request) -> Response:
    """The problem response of an error."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, e.Unauthenticated):
        headers["WWW-Authenticate"] = f'Bearer realm="casekeeper", error="{_bearer_error(error)}"'
    if isinstance(error, e.RateLimited | e.StillRunning):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, e.RateLimited):
        headers |= rate_headers(error.quotas)
    elif isinstance(error, e.Unavailable) and error.retryable:
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    more: dict[str, Any] = {}
    if isinstance(error, e.Invalid):
        more["errors"] = [{"field": f.field, "message": f.message} for f in error.errors]
    if isinstance(error, e.RoleTooLow):
        more["needed_role"] = error.needed
    if isinstance(error, e.PolicyDenies):
        more |= {"rule": error.rule, "needed_role": error.needed}
    if isinstance(error, e.ApprovalNeeded):
        more["rule"] = error.rule
    if isinstance(error, e.SessionBusy):
        more["open_operations"] = list(error.open_operations)
    if isinstance(error, e.StaleVersion):
        more["current_version"] = error.current
    if isinstance(error, e.RouteGone):
        more |= {"successor": error.successor, "documentation": "docs/migration.md"}
        headers["Link"] = f'<{error.successor}>; rel="successor-version"'
    return _response(
        request, status, error.code, error.title, error.detail, error.check, error.retryable, headers, more
    )


def answer_to(error: Exception, request: Request) -> Response:
    """The response to any way to fail; what nobody expected is an incident."""
    match error:
        case e.CasekeeperError():
            return problem(error, request)
        case RequestValidationError():
            fields = tuple(e.FieldError(_path(x["loc"]), str(x["msg"])) for x in error.errors())
            return problem(e.ArgumentsInvalid(errors=fields), request)
        case HTTPException():
            return _of_http(error, request)
        case ClientDisconnect():
            # Nobody reads it; the number is what proxies log for a client that went away.
            return Response(status_code=499)
        case _:
            return _incident(error, request)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every way to fail end in a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer_to(error, request)

    for kind in (ClientDisconnect, e.CasekeeperError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def _of_http(error: HTTPException, request: Request) -> Response:
    if error.status_code == 404:
        return problem(e.RouteNotFound(request.url.path), request)
    headers = dict(error.headers or {})
    no_method = error.status_code == 405
    title = "This route does not take this method" if no_method else "The request does not fit"
    code = "method_not_allowed" if no_method else "bad_request"
    return _response(request, error.status_code, code, title, title + ".", None, False, headers, {})


def _incident(error: Exception, request: Request) -> Response:
    incident = f"inc_{secrets.token_hex(8)}"
    _log.error("incident %s", incident, exc_info=error)
    detail = f"Something went wrong here. Tell the operator the incident id {incident}."
    return _response(
        request, 500, "internal_error", "Internal error", detail, None, True, {}, {"incident": incident}
    )


def _response(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    check: str | None,
    retryable: bool,
    headers: dict[str, str],
    more: dict[str, Any],
) -> Response:
    body: dict[str, Any] = {
        "type": f"urn:casekeeper:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "check": check,
        "request_id": getattr(request.state, "request_id", None),
        "retryable": retryable,
        "errors": [],
        **more,
    }
    return Response(dumps(body), status, headers, MEDIA_TYPE)


def _bearer_error(error: e.Unauthenticated) -> str:
    # RFC 6750 §3.1 knows invalid_request and invalid_token.
    return "invalid_request" if isinstance(error, e.TokenMissing) else "invalid_token"


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part not in ("body", *KINDS)) or "body"
