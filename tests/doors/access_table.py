"""Who may call what: every route, written by hand from the requirements, not derived from the code.

A row gives one status for each caller in the order of `KNOWN`. The targets:

own       the casefile in which the callers have their roles (or: the caller's own account, own key)
shared    a session in it, of a colleague, visible to the casefile
private   a session in it, of a colleague, private
foreign   the like in a casefile of which none of the callers is a member (or: another's account, another's key)
missing   well-formed ids of what never was
deleted   the like in a casefile in which the callers had their roles before it was deleted
any       the route names no thing
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

UNKNOWN = ("none", "expired", "forged")
KNOWN = ("stranger", "viewer", "editor", "admin", "owner", "operator")

EVERYBODY = "200 200 200 200 200 200"
NOBODY = "404 404 404 404 404 404"
MEMBERS = "404 200 200 200 200 404"
EDITORS = "404 403 200 200 200 404"
ADMINS = "404 403 403 200 200 404"
OWNERS = "404 403 403 403 200 404"
OPERATORS = "403 403 403 403 403 200"
OPERATORS_MISS = "403 403 403 403 403 404"
# A private session of another: its existence is told to the admin and the owner only.
SUPERVISORS_READ = "404 404 404 200 200 404"
SUPERVISORS_MAY_NOT_WORK = "404 404 404 403 403 404"

HIDDEN = {"foreign": NOBODY, "missing": NOBODY, "deleted": NOBODY}


@dataclass(frozen=True)
class Place:
    """The ids that a request needs, for one target and one caller."""

    casefile_id: str
    session_id: str
    event_id: str
    document_id: str
    user_id: str
    key_id: str
    password: str
    refresh_token: str


@dataclass(frozen=True)
class Case:
    """One way to call a route.

    `changes`: a call that succeeds changes what the next caller would find. `open`: no token is needed.
    """

    route: str
    rows: dict[str, str]
    payload: Callable[[Place], Json] | None = None
    query: str = ""
    name: str = ""
    changes: bool = False
    open: bool = False
    denied_in_session: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def id(self) -> str:
        """How a test names it."""
        return f"{self.route}{' ' if self.name else ''}{self.name}"

    @property
    def is_in_casefile(self) -> bool:
        """Whether it is about a casefile, so that members' denials are on a record."""
        return "deleted" in self.rows


def _tool(name: str) -> Json:
    return {"operation_type": "tool", "tool_name": name, "parameters": {}}


def _in_casefile(p: Place) -> Json:
    return {"casefile_id": p.casefile_id}


def _of_user(p: Place) -> Json:
    return {"user_id": p.user_id}


def _in_session(p: Place) -> Json:
    return {"session_id": p.session_id}


def _of_event(p: Place) -> Json:
    return {"event_id": p.event_id}


HEALTH = [
    Case(f"GET {path}", {"any": EVERYBODY}, open=True) for path in ("/livez", "/readyz", "/openapi.json")
]

AUTH = [
    Case(
        "POST /v1/auth/token",
        {"any": EVERYBODY},
        lambda p: _of_user(p) | {"password": p.password},
        open=True,
    ),
    Case(
        "POST /v1/auth/refresh",
        {"any": EVERYBODY},
        lambda p: {"refresh_token": p.refresh_token},
        open=True,
        changes=True,
    ),
    Case(
        "POST /v1/auth/session",
        {"any": EVERYBODY},
        lambda p: _of_user(p) | {"password": p.password},
        open=True,
    ),
    Case("GET /v1/auth/session", {"any": EVERYBODY}),
    # There is no issuer here, and nobody has begun a login.
    Case("GET /v1/auth/login", {"any": "422 422 422 422 422 422"}, open=True),
    Case(
        "GET /v1/auth/callback",
        {"any": "401 401 401 401 401 401"},
        query="?state=x&code=x",
        open=True,
    ),
]

ACCOUNTS = [
    Case(
        "POST /v1/auth/logout",
        {"own": EVERYBODY, "foreign": OPERATORS, "missing": OPERATORS_MISS},
        _of_user,
        changes=True,
    ),
    Case(
        "POST /v1/accounts/create",
        {"any": OPERATORS},
        lambda _: {"user_id": "made@example.com"},
        changes=True,
    ),
    Case("POST /v1/accounts/list", {"any": OPERATORS}, lambda _: {}),
    Case(
        "POST /v1/accounts/update",
        {"own": EVERYBODY},
        lambda p: _of_user(p) | {"password": "another password", "current_password": p.password},
        name="own password",
        changes=True,
    ),
    Case(
        "POST /v1/accounts/update",
        {"own": OPERATORS, "foreign": OPERATORS, "missing": OPERATORS_MISS},
        lambda p: _of_user(p) | {"display_name": "Somebody"},
        changes=True,
    ),
    Case(
        "POST /v1/accounts/deactivate",
        {"own": OPERATORS, "foreign": OPERATORS, "missing": OPERATORS_MISS},
        _of_user,
        changes=True,
    ),
    Case(
        "POST /v1/keys/create", {"own": EVERYBODY, "foreign": OPERATORS, "missing": OPERATORS_MISS}, _of_user
    ),
    Case("POST /v1/keys/list", {"own": EVERYBODY, "foreign": OPERATORS, "missing": OPERATORS_MISS}, _of_user),
    Case(
        "POST /v1/keys/revoke",
        {"own": EVERYBODY, "foreign": "404 404 404 404 404 200", "missing": NOBODY},
        lambda p: {"key_id": p.key_id},
        changes=True,
    ),
]

CASEFILES = [
    Case("POST /v1/casefiles/create", {"any": EVERYBODY}, lambda _: {"title": "Rent dispute"}),
    Case("POST /v1/casefiles/get", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case("POST /v1/casefiles/list", {"any": EVERYBODY}, lambda _: {}),
    Case(
        "POST /v1/casefiles/update",
        {"own": ADMINS, **HIDDEN},
        lambda p: _in_casefile(p) | {"title": "Flat 4"},
    ),
    Case("POST /v1/casefiles/delete", {"own": OWNERS, **HIDDEN}, _in_casefile, changes=True),
    Case(
        "POST /v1/permissions/grant",
        {"own": ADMINS, **HIDDEN},
        lambda p: _in_casefile(p) | {"user_id": "colleague@example.com", "role": "viewer"},
        changes=True,
    ),
    Case(
        "POST /v1/permissions/revoke",
        {"own": ADMINS, **HIDDEN},
        lambda p: _in_casefile(p) | {"user_id": "colleague@example.com"},
        changes=True,
    ),
    Case("POST /v1/permissions/list", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case(
        "POST /v1/permissions/transfer",
        {"own": OWNERS, **HIDDEN},
        lambda p: _in_casefile(p) | {"user_id": "colleague@example.com"},
        changes=True,
    ),
    Case("POST /v1/permissions/check", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case(
        "POST /v1/permissions/check",
        {"own": ADMINS, **HIDDEN},
        lambda p: _in_casefile(p) | {"user_id": "colleague@example.com"},
        name="another's",
    ),
]

DOCUMENTS = [
    Case("POST /v1/documents/list", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case(
        "POST /v1/documents/get",
        {"own": MEMBERS, **HIDDEN},
        lambda p: _in_casefile(p) | {"document_id": p.document_id},
    ),
    Case(
        "GET /v1/documents/{document_id}/content",
        {"own": MEMBERS, **HIDDEN},
        query="?casefile_id={casefile_id}",
    ),
    Case(
        "POST /v1/documents/delete",
        {"own": ADMINS, **HIDDEN},
        lambda p: _in_casefile(p) | {"document_ids": [p.document_id]},
        changes=True,
    ),
    Case(
        "POST /v1/documents/upload",
        {"own": EDITORS, **HIDDEN},
        query="?casefile_id={casefile_id}&filename=a.eml",
    ),
]

SESSIONS = [
    Case("POST /v1/sessions/create", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case(
        "POST /v1/sessions/execute",
        {"own": MEMBERS, **HIDDEN},
        lambda p: _in_casefile(p) | {"operation": _tool("noop")},
        name="read in casefile",
    ),
    Case(
        "POST /v1/sessions/execute",
        {"own": EDITORS, **HIDDEN},
        lambda p: _in_casefile(p) | {"operation": _tool("touch")},
        name="write in casefile",
    ),
    Case(
        "POST /v1/sessions/execute",
        {"shared": EDITORS, "private": SUPERVISORS_MAY_NOT_WORK, **HIDDEN},
        lambda p: _in_session(p) | {"operation": _tool("noop")},
        name="read in session",
    ),
    Case(
        "POST /v1/sessions/execute",
        {"shared": ADMINS, "private": SUPERVISORS_MAY_NOT_WORK, **HIDDEN},
        lambda p: _in_session(p) | {"operation": _tool("shred")},
        name="destroy in session",
        denied_in_session=frozenset({"editor"}),
    ),
    Case("POST /v1/sessions/get", {"shared": MEMBERS, "private": SUPERVISORS_READ, **HIDDEN}, _in_session),
    Case("POST /v1/sessions/list", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case("POST /v1/sessions/list", {"any": EVERYBODY}, lambda _: {}, name="everywhere"),
    Case(
        "POST /v1/sessions/close",
        {"shared": ADMINS, "private": SUPERVISORS_READ, **HIDDEN},
        _in_session,
        changes=True,
    ),
    Case(
        "GET /v1/sessions/{session_id}/events/stream",
        {"shared": MEMBERS, "private": SUPERVISORS_READ, **HIDDEN},
    ),
    Case("GET /v1/sessions/{session_id}/record", {"shared": MEMBERS, "private": SUPERVISORS_READ, **HIDDEN}),
]

OPERATIONS = [
    Case("GET /v1/catalog", {"any": EVERYBODY}),
    Case("POST /v1/operations/get", {"shared": MEMBERS, "private": SUPERVISORS_READ, **HIDDEN}, _of_event),
    Case("POST /v1/operations/cancel", {"shared": ADMINS, "private": SUPERVISORS_READ, **HIDDEN}, _of_event),
    Case("GET /v1/operations/{event_id}/{part}", {"shared": MEMBERS, "private": SUPERVISORS_READ, **HIDDEN}),
    Case("POST /v1/events/query", {"own": MEMBERS, **HIDDEN}, _in_casefile),
    Case("POST /v1/events/query", {"any": EVERYBODY}, lambda _: {}, name="everywhere"),
]

GONE = [
    Case(f"{method} {path}", {"any": "410 410 410 410 410 410"}, open=True)
    for path in ("/v1/tool-sessions", "/v1/tool-sessions/{rest:path}", "/v1/chat", "/v1/chat/{rest:path}")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
]

CASES = [*HEALTH, *AUTH, *ACCOUNTS, *CASEFILES, *DOCUMENTS, *SESSIONS, *OPERATIONS, *GONE]
