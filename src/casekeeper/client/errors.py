"""What can go wrong with a call, by the branch of the server's problems (RFC 9457).

```text
ApiError                     code, detail, status, request_id, problem (the whole body)
├── Unauthenticated    401   no believable caller: wrong credentials, ended token
├── Denied             403   a member whose role is too low, or not an operator
├── NotFound           404   missing, or hidden from you
├── Gone               410   a route of the former API
├── Conflict           409   closed or busy session, archived casefile, stale version
├── TooLarge           413   more than the server takes (also 431)
├── Invalid            422   the request does not fit; `errors` names the fields
├── Limited            429   too much, too fast; `retry_after_s`
├── Unavailable        503   store, model or server unavailable; also 502 and 504 of a proxy
│   └── Unreachable     —    no answer came: refused, cut off, timed out
├── ServerFault        500   a fault of the server; `problem["incident"]` says where to look
└── OperationFailed     —    raised by `Result.raise_for_failure()` alone: it ran, and failed
```

`code` is stable, `detail` is for people. What the SDK raises has been retried already where that could help.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import httpx2
from pydantic import ValidationError

from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.execution.status import Executed


class ApiError(Exception):
    """A call that gave no result."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        problem: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status
        self.problem = dict(problem or {})
        self.retry_after_s = retry_after_s

    @property
    def request_id(self) -> str | None:
        """The id of the call, for the server's operator."""
        return self.problem.get("request_id")


class Unauthenticated(ApiError):
    """The server does not believe who calls."""


class Denied(ApiError):
    """The caller is known, but may not do this."""


class NotFound(ApiError):
    """Missing, or hidden from this caller; the two look the same."""


class Gone(ApiError):
    """A route of the former API; `problem["successor"]` names the one to use."""


class Conflict(ApiError):
    """The state does not allow this now."""


class TooLarge(ApiError):
    """More than the server takes."""


@value
class FieldProblem:
    """One thing wrong with one field."""

    field: str
    message: str


class Invalid(ApiError):
    """The request itself is wrong."""

    @property
    def errors(self) -> list[FieldProblem]:
        """The fields that do not fit."""
        return [FieldProblem(str(e["field"]), str(e["message"])) for e in self.problem.get("errors", ())]


class Limited(ApiError):
    """Too many requests; the same one is welcome again after `retry_after_s`."""


class Unavailable(ApiError):
    """Something that the call needs is unavailable. Nothing was half done."""


class Unreachable(Unavailable):
    """No answer came, so it is not known whether the call was heard. Calls with a `request_id` are safe to repeat."""


class ServerFault(ApiError):
    """Something went wrong inside the server."""


class OperationFailed(ApiError):
    """An operation ran and failed; `result` is all that is known of it."""

    def __init__(self, result: "Executed") -> None:
        error = result.error
        super().__init__(
            error.type if error else "failed", error.message if error else f"It is {result.status}."
        )
        self.result = result


_BRANCHES: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    405: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: Invalid,
    429: Limited,
    431: TooLarge,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of_response(response: httpx2.Response) -> ApiError:
    """The error that a response with a status of 400 or more stands for; its body has been read."""
    return error_of(response.status_code, _object(response), response.headers.get("retry-after", ""))


def error_of(status: int, problem: Mapping[str, Any], after: str = "") -> ApiError:
    """The error that a problem stands for. `after` is the Retry-After header."""
    branch = _BRANCHES.get(status) or (Invalid if status < 500 else ServerFault)
    return branch(
        str(problem.get("code") or f"http_{status}"),
        str(problem.get("detail") or f"The server answered with status {status}."),
        status=status,
        problem=problem,
        retry_after_s=int(after) if after.isdecimal() else None,
    )


def unreachable(url: str, error: Exception) -> Unreachable:
    """The error of a call that got no answer."""
    why = str(error).rstrip(".") or type(error).__name__
    return Unreachable("unreachable", f"No answer from {url}: {why}.")


def invalid(error: ValidationError) -> Invalid:
    """The error of arguments that do not fit, found before anything was sent."""
    fields = [
        {"field": ".".join(("payload", *map(str, e["loc"]))), "message": e["msg"]} for e in error.errors()
    ]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in fields[:3])
    return Invalid("arguments_invalid", detail, problem={"errors": fields})


def _object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return cast(dict[str, Any], body) if isinstance(body, dict) else {}
