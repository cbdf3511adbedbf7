"""The one assertion about the shape of refusals (RFC 9457, docs/errors.md)."""

from collections.abc import Iterator
from typing import Any

import httpx2
from dirty_equals import IsInstance, IsPartialDict, IsStr

from casekeeper import errors

# Two that HTTP itself refuses, and the one that is nobody's fault but ours.
_OF_THE_DOOR = {"method_not_allowed", "bad_request", "internal_error"}


def known_codes() -> set[str]:
    """The codes of all leaves of the exception tree."""
    return {leaf.code for leaf in _leaves(errors.CasekeeperError)} | _OF_THE_DOOR


def assert_problem(
    response: httpx2.Response, status: int, code: str | None = None, *, field: str | None = None
) -> dict[str, Any]:
    """The response is a complete problem; returns it. `field` must be among the fields that it names."""
    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert body == IsPartialDict(
        type=f"urn:casekeeper:problem:{body['code']}",
        title=IsStr(min_length=3),
        status=status,
        detail=IsStr(min_length=3),
        instance=response.request.url.path,
        code=code or IsStr,
        check=body["check"] if body["check"] in (None, "who", "where", "what", "admit") else "unknown",
        retryable=IsInstance(bool),
    )
    assert body["code"] in known_codes()
    assert {"request_id", "errors"} <= body.keys()
    if field is not None:
        assert field in {error["field"] for error in body["errors"]}, body["errors"]
    return body


def _leaves(branch: type[errors.CasekeeperError]) -> Iterator[type[errors.CasekeeperError]]:
    yield branch
    for below in branch.__subclasses__():
        yield from _leaves(below)
