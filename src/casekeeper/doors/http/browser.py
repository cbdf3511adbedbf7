"""Logins of browsers: `/v1/auth/login`, `/v1/auth/callback`, `/v1/auth/session` (docs/identity.md)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from casekeeper.doors.http.dependencies import GuardedRoute, Inbound, OpenRoute
from casekeeper.doors.http.envelope import Envelope, Json, dumps
from casekeeper.doors.http.problems import problem
from casekeeper.errors import CasekeeperError
from casekeeper.identity.code_flow import Return
from casekeeper.identity.logins import Login, Secret
from casekeeper.identity.logouts import LogOut
from casekeeper.identity.principal import Principal
from casekeeper.ids import UserId
from casekeeper.strict import Strict
from casekeeper.verbs import VERBS

open_ = APIRouter(prefix="/v1/auth", route_class=OpenRoute)
guarded = APIRouter(prefix="/v1/auth", route_class=GuardedRoute)

# A path of this server: neither `//host` nor `/\host`, which browsers take for another one, nor anything that is
# no visible ASCII. Short, as it is kept in a cookie.
NextPath = Annotated[
    str,
    Query(
        alias="next",
        max_length=1024,
        pattern=r"^/([\x21-\x2e\x30-\x5b\x5d-\x7e][\x21-\x5b\x5d-\x7e]*)?$",
        description="Where the browser goes afterwards: a path of this server.",
    ),
]
Text = Annotated[str | None, Query(max_length=4096)]

_LOGOUT = VERBS["auth/logout"]
_REDIRECT: dict[int | str, dict[str, Any]] = {
    303: {"description": "Go on there.", "headers": {"Location": {"schema": {"type": "string"}}}}
}


class BrowserLogin(Strict):
    """Log a browser in with a password."""

    user_id: UserId
    password: Secret


class WhoIsIn(BaseModel):
    """Who calls."""

    user_id: str
    is_operator: bool


@open_.get(
    "/login",
    operation_id="auth_login",
    tags=["auth"],
    status_code=303,
    responses=_REDIRECT,
    response_class=Response,
)
async def login(
    door: Inbound,
    issuer: Annotated[
        str | None, Query(max_length=500, description="Which one, if there are several.")
    ] = None,
    next_path: NextPath = "/",
) -> Response:
    """Send a browser to an issuer, to log in there."""
    door.browser.must_be_usable(door.url.hostname or "")
    start = await door.server.identity.code_flow.start(issuer, next_path)
    return _sent_to(start.location, *door.browser.login(door, start.state, start.sealed))


@open_.get(
    "/callback",
    operation_id="auth_callback",
    tags=["auth"],
    status_code=303,
    responses=_REDIRECT,
    response_class=Response,
)
async def callback(
    door: Inbound,
    state: Annotated[str, Query(min_length=1, max_length=200)],
    code: Text = None,
    error: Annotated[str | None, Query(pattern=r"^[a-z_]{1,60}$")] = None,
    iss: Text = None,
) -> Response:
    """Where an issuer sends the browser back to: begins its session and sends it on."""
    cookies = door.browser
    back = Return(state, code=code, error=error, iss=iss)
    try:
        known, next_path = await door.server.identity.code_flow.finish(cookies.login_of(door, state), back)
        opened = await door.server.identity.browser_sessions.open(known, cookies.session_of(door))
    except CasekeeperError as refusal:
        response = problem(refusal, door)
        if not refusal.retryable:
            response.headers.append("Set-Cookie", cookies.no_login(state))
        return response
    return _sent_to(next_path, cookies.session(opened.secret), cookies.no_login(state))


async def log_in(door: Inbound, body: Envelope[BrowserLogin]) -> Response:
    """Begin a browser's session, for a password."""
    cookies = door.browser
    cookies.must_be_usable(door.url.hostname or "")
    cookies.must_come_from_here(door)
    door.begin(body)
    fields = body.payload
    known = await door.server.identity.logins.known(Login(user_id=fields.user_id, password=fields.password))
    opened = await door.server.identity.browser_sessions.open(known, cookies.session_of(door))
    response = door.answer(_who(opened.principal), body)
    response.headers.append("Set-Cookie", cookies.session(opened.secret))
    return response


async def log_out(door: Inbound, body: Envelope[LogOut]) -> Response:
    """End a login or all of an account's, and take the browser's cookie back where its session ended."""
    caller = door.caller
    ended, repeated = await door.server.identity.logouts.log_out(
        caller, body.payload, door.ask(_LOGOUT, body)
    )
    response = door.answer(ended, body, repeated=repeated)
    is_own = ended.everywhere and ended.user_id == caller.user_id
    if caller.browser_session is not None and (is_own or body.payload.browser_session):
        response.headers.append("Set-Cookie", door.browser.no_session())
    return response


@guarded.get("/session", operation_id="auth_who", tags=["auth"], response_model=WhoIsIn)
async def who(door: Inbound) -> Response:
    """Who calls."""
    return Json(dumps(_who(door.caller)), headers={"Cache-Control": "no-store"})


def _who(principal: Principal) -> WhoIsIn:
    return WhoIsIn(user_id=principal.user_id, is_operator=principal.is_operator)


def _sent_to(location: str, *cookies: str) -> Response:
    # The address that the browser comes from holds a code, which no other site may see.
    headers = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = Response(status_code=303, headers=headers)
    for cookie in cookies:
        response.headers.append("Set-Cookie", cookie)
    return response
