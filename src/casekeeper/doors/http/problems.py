"""Exceptions as responses: RFC 9457 problems with their headers."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from casekeeper import errors as e
from casekeeper.doors.http.envelope import dumps
from casekeeper.doors.http.rates import rate_headers
from casekeeper.doors.inbound import incident_of, not_fitting, problem_body, problem_of

MEDIA_TYPE = "application/problem+json"

_RETRY_AFTER_S = 2


def problem(error: e.CasekeeperError, request: Request) -> Response:
    """The problem response of an error."""
    headers: dict[str, str] = {}
    match error:
        case e.Unauthenticated():
            headers["WWW-Authenticate"] = f'Bearer realm="casekeeper", error="{_bearer_error(error)}"'
        case e.RateLimited():
            headers["Retry-After"] = str(error.retry_after_s)
            headers |= rate_headers(error.quotas)
        case e.StillRunning():
            headers["Retry-After"] = str(error.retry_after_s)
        case e.Unavailable() if error.retryable:
            headers["Retry-After"] = str(_RETRY_AFTER_S)
        case e.RouteGone():
            headers["Link"] = f'<{error.successor}>; rel="successor-version"'
        case _:
            pass
    return _response(problem_of(error, request.url.path, _request_id(request)), headers)


def answer_to(error: Exception, request: Request) -> Response:
    """The response to any way to fail; what nobody expected is an incident."""
    match error:
        case e.CasekeeperError():
            return problem(error, request)
        case RequestValidationError():
            return problem(not_fitting(error.errors()), request)
        case HTTPException():
            return _of_http(error, request)
        case ClientDisconnect():
            # Nobody reads it; the number is what proxies log for a client that went away.
            return Response(status_code=499)
        case _:
            return _response(incident_of(error, request.url.path, _request_id(request)))


def add_problem_handlers(app: FastAPI) -> None:
    """Make every way to fail end in a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer_to(error, request)

    for kind in (ClientDisconnect, e.CasekeeperError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def _of_http(error: HTTPException, request: Request) -> Response:
    if error.status_code == 404:
        return problem(e.RouteNotFound(request.url.path), request)
    no_method = error.status_code == 405
    title = "This route does not take this method" if no_method else "The request does not fit"
    code = "method_not_allowed" if no_method else "bad_request"
    body = problem_body(error.status_code, code, title, title + ".", request.url.path, _request_id(request))
    return _response(body, dict(error.headers or {}))


def _response(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(body), body["status"], headers, MEDIA_TYPE)


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _bearer_error(error: e.Unauthenticated) -> str:
    # RFC 6750 §3.1 knows invalid_request and invalid_token.
    return "invalid_request" if isinstance(error, e.TokenMissing) else "invalid_token"
