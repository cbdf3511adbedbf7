"""Needed by every door: authentication of the caller, request ids, and problems.

It knows no web framework. A door hands in what came with a call (`Arrival`) and renders what it gets.
"""

import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, Field

from casekeeper import errors as e
from casekeeper.doors.cookies import Arrival, Cookies
from casekeeper.identity.principal import Principal
from casekeeper.ids import REQUEST_ID
from casekeeper.kinds import KINDS
from casekeeper.server import Server

_BEARER = "bearer "
_REQUEST_ID = re.compile(REQUEST_ID)
# Parts of pydantic's locations that are no fields: the body itself, and the tags of the union of operations.
_NO_FIELDS = {"body", *KINDS}

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


# WHO


async def authenticated(server: Server, call: Arrival) -> Principal:
    """Who calls. A browser's session stands in for a token where there is no `Authorization` header at all.

    Raises:
        Unauthenticated: There is no believable caller.
        ForeignPage: Another site's page uses a browser's session, or it is not said which page changes something by it.
    """
    headers = call.headers
    header = headers.get("authorization")
    if header is None and "cookie" in headers:
        cookies = Cookies(server)
        if secret := cookies.session_of(call):
            return await _of_browser(server, cookies, call, secret)
    return await server.identity.authenticator.authenticate(_bearer(header))


async def _of_browser(server: Server, cookies: Cookies, call: Arrival, secret: str) -> Principal:
    cookies.must_come_from_here(call)
    return await server.identity.browser_sessions.authenticate(secret)


def _bearer(value: str | None) -> str | None:
    if value is None or value[: len(_BEARER)].lower() != _BEARER:
        return None
    return value[len(_BEARER) :].strip()


# The request id


def sent_request_id(headers: Mapping[str, str], in_body: str | None) -> str | None:
    """The request id of body and header, which must agree.

    Raises:
        ArgumentsInvalid: They differ, or the header is ill-formed.
    """
    header = headers.get("idempotency-key")
    if header is None:
        return in_body
    if not _REQUEST_ID.fullmatch(header):
        raise e.ArgumentsInvalid(errors=(e.FieldError("Idempotency-Key", "1 to 128 of A-Z a-z 0-9 _ . : -"),))
    if in_body not in (None, header):
        raise e.ArgumentsInvalid(
            errors=(e.FieldError("request_id", "differs from the header Idempotency-Key"),)
        )
    return header


def must_be_caller(user_id: str | None, caller: Principal | None) -> None:
    """The user whom a request names, if it names one, must be who calls.

    Raises:
        UserMismatch: It is somebody else.
    """
    if caller is not None and user_id not in (None, caller.user_id):
        raise e.UserMismatch


# Problems


def problem_of(error: e.CasekeeperError, instance: str, request_id: str | None) -> dict[str, Any]:
    """The problem of an error, with the members that only some have."""
    more: dict[str, Any] = {}
    match error:
        case e.Invalid():
            more["errors"] = [{"field": f.field, "message": f.message} for f in error.errors]
        case e.RoleTooLow():
            more["needed_role"] = error.needed
        case e.PolicyDenies():
            more = {"rule": error.rule, "needed_role": error.needed}
        case e.ApprovalNeeded():
            more["rule"] = error.rule
        case e.SessionBusy():
            more["open_operations"] = list(error.open_operations)
        case e.StaleVersion():
            more["current_version"] = error.current
        case e.RouteGone():
            more = {"successor": error.successor, "documentation": "docs/migration.md"}
        case _:
            pass
    return problem_body(
        error.status,
        error.code,
        error.title,
        error.detail,
        instance,
        request_id,
        check=error.check,
        retryable=error.retryable,
        **more,
    )


def incident_of(error: Exception, instance: str, request_id: str | None) -> dict[str, Any]:
    """The problem of what nobody expected; the log has the error under the incident's id."""
    incident = f"inc_{secrets.token_hex(8)}"
    _log.error("incident %s", incident, exc_info=error)
    detail = f"Something went wrong here. Tell the operator the incident id {incident}."
    return problem_body(
        500,
        "internal_error",
        "Internal error",
        detail,
        instance,
        request_id,
        retryable=True,
        incident=incident,
    )


def problem_body(
    status: int,
    code: str,
    title: str,
    detail: str,
    instance: str,
    request_id: str | None,
    *,
    check: str | None = None,
    retryable: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """A problem as JSON."""
    return {
        "type": f"urn:casekeeper:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "check": check,
        "request_id": request_id,
        "retryable": retryable,
        "errors": [],
        **more,
    }


def not_fitting(found: Iterable[Mapping[str, Any]]) -> e.ArgumentsInvalid:
    """The error of what pydantic found wrong with a request."""
    return e.ArgumentsInvalid(errors=tuple(e.FieldError(_path(x["loc"]), str(x["msg"])) for x in found))


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part not in _NO_FIELDS) or "body"
