"""Logging in at an issuer with a browser: OpenID Connect's authorization code flow.

With PKCE (RFC 7636, S256), `state`, `nonce`, and `iss` (RFC 9207) where the issuer sends it. What a login has to
remember is sealed into a cookie of the browser that began it: any process finishes it, and no other browser can.
"""

import base64
import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Protocol
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from casekeeper.clock import Clock
from casekeeper.errors import (
    ArgumentsInvalid,
    CredentialsRejected,
    FieldError,
    IssuerUnavailable,
    LoginDeclined,
    LoginStateRejected,
    Overloaded,
)
from casekeeper.identity.discovery import Endpoints, json_object
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuers import Issuers
from casekeeper.identity.logins import Known, Logins
from casekeeper.identity.published import FetchFailed
from casekeeper.identity.seals import Seals
from casekeeper.values import value

LOGIN_LIFETIME = timedelta(minutes=10)

# Each waits for an issuer; more than these would only pile up behind one that is slow.
_EXCHANGES_AT_ONCE = 50
_OK, _REFUSED = 200, 400
_PURPOSE = "login at an issuer"

Post = Callable[[str, Mapping[str, str], Mapping[str, str]], Awaitable[tuple[int, bytes]]]
"""Sends a form with headers; status and body of the answer.

Raises:
    FetchFailed: There was none in time.
"""

_log = logging.getLogger("casekeeper.security")


class FindsEndpoints(Protocol):
    """Knows where an issuer's logins are."""

    async def endpoints(self) -> Endpoints:
        """The endpoints; `IssuerUnavailable` where they cannot be had."""
        ...


class _Begun(BaseModel):
    """What a login remembers until the browser comes back."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    state: str
    nonce: str
    verifier: str
    next: str
    ends: float


@value
class Start:
    """Where the browser is sent, and what it keeps meanwhile."""

    location: str
    state: str
    sealed: str


@value
class Return:
    """What the browser came back with. `error` and `code` exclude each other (RFC 6749 §4.1.2)."""

    state: str
    code: str | None = None
    error: str | None = None
    iss: str | None = None


class CodeFlow:
    """Logins at those issuers of the settings that have `browser`."""

    def __init__(
        self,
        issuers: Iterable[tuple[Issuer, FindsEndpoints]],
        believed: Issuers,
        logins: Logins,
        post: Post,
        seals: Seals,
        redirect_uri: str,
        clock: Clock,
    ) -> None:
        self._issuers = {issuer.issuer: (issuer, finds) for issuer, finds in issuers if issuer.browser}
        self._believed = believed
        self._logins = logins
        self._post = post
        self._seals = seals
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._exchanging = 0

    @property
    def issuers(self) -> list[str]:
        """At which issuers one can log in."""
        return list(self._issuers)

    async def start(self, issuer: str | None, next_path: str) -> Start:
        """Begin a login; without a name at the only issuer there is.

        Raises:
            ArgumentsInvalid: There is no such issuer, or it must be named.
            IssuerUnavailable: It does not say where its logins are.
        """
        name = issuer or (next(iter(self._issuers)) if len(self._issuers) == 1 else "")
        if name not in self._issuers:
            raise ArgumentsInvalid(errors=(FieldError("issuer", "names no issuer to log in at"),))
        described, finds = self._issuers[name]
        endpoints = await finds.endpoints()
        begun = _Begun(
            issuer=name,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            next=next_path,
            ends=(self._clock() + LOGIN_LIFETIME).timestamp(),
        )
        query = {
            "response_type": "code",
            "client_id": described.audience,
            "redirect_uri": self._redirect_uri,
            "scope": described.scope,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": _challenge(begun.verifier),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in endpoints.authorization else "?"
        location = f"{endpoints.authorization}{joint}{urlencode(query)}"
        return Start(location, begun.state, self._seals.seal(_PURPOSE, begun.model_dump()))

    async def finish(self, sealed: str, back: Return) -> tuple[Known, str]:
        """Who has logged in, and where the browser wanted to go.

        Raises:
            LoginStateRejected: This browser began no such login, or it was another issuer that answered.
            LoginDeclined: The issuer has let nobody in.
            CredentialsRejected: The code or the ID token is not good, or stands for nobody here.
            IssuerUnavailable: The issuer cannot be asked.
            Overloaded: Too many logins wait for their issuers.
        """
        begun = self._begun(sealed, back.state)
        issuer, finds = self._issuers.get(begun.issuer, (None, None))
        if issuer is None or finds is None:
            raise LoginStateRejected
        endpoints = await finds.endpoints()
        if back.iss != begun.issuer and (back.iss is not None or endpoints.names_itself):
            _log.warning("login refused: the answer is not from %s", begun.issuer)
            raise LoginStateRejected
        if back.code is None:
            raise LoginDeclined(f"The issuer says: {back.error or 'nothing'}.")
        token = await self._exchanged(issuer, endpoints, back.code, begun.verifier)
        user = await self._believed.user_of(token, of=begun.issuer, nonce=begun.nonce)
        return await self._logins.external(user), begun.next

    def _begun(self, sealed: str, state: str) -> _Begun:
        try:
            begun = _Begun.model_validate(self._seals.open(_PURPOSE, sealed))
        except ValidationError as error:
            raise LoginStateRejected from error
        same = hmac.compare_digest(begun.state.encode(), state.encode())
        if not same or self._clock().timestamp() >= begun.ends:
            raise LoginStateRejected
        return begun

    async def _exchanged(self, issuer: Issuer, endpoints: Endpoints, code: str, verifier: str) -> str:
        """The ID token for the code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        if issuer.client_secret is None:
            form["client_id"] = issuer.audience
        elif endpoints.takes_basic:
            headers["Authorization"] = _basic(issuer.audience, issuer.client_secret.get_secret_value())
        else:
            form |= {"client_id": issuer.audience, "client_secret": issuer.client_secret.get_secret_value()}
        if self._exchanging >= _EXCHANGES_AT_ONCE:
            raise Overloaded
        self._exchanging += 1
        try:
            status, body = await self._post(endpoints.token, form, headers)
            said = json_object(body)
        except FetchFailed as error:
            raise IssuerUnavailable(f"{issuer.issuer} does not take the code.") from error
        finally:
            self._exchanging -= 1
        if status == _REFUSED and said.get("error") == "invalid_grant":
            _log.warning("login refused: %s does not know the code", issuer.issuer)
            raise CredentialsRejected
        token = said.get("id_token")
        if status != _OK or not isinstance(token, str):
            _log.error("%s answers a code with %s: %.100r", issuer.issuer, status, said.get("error"))
            raise IssuerUnavailable(f"{issuer.issuer} does not take the code.")
        return token


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _basic(client: str, secret: str) -> str:
    # RFC 6749 §2.3.1: each part is form-encoded first.
    pair = f"{quote(client, safe='')}:{quote(secret, safe='')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
