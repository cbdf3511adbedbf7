"""The browser's door: its cookies, and what a request with one must prove besides (CSRF).

What protects a session from pages of other sites: the cookie is `SameSite=Lax`; where a browser says that a request
comes from (`Sec-Fetch-Site`, `Origin`) must be this server, and for what changes something it must say so.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from casekeeper.errors import BrowserLoginsOff, ForeignPage
from casekeeper.identity.code_flow import LOGIN_LIFETIME
from casekeeper.server import Server

_SAFE = ("GET", "HEAD")
# Logins that one browser may have begun at once; each takes some 600 bytes of every request.
_LOGINS_AT_ONCE = 4


class Arrival(Protocol):
    """What came with a call, whatever carries it. Headers are found by their names in lower case."""

    @property
    def method(self) -> str:
        """As HTTP names it."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By name."""
        ...

    @property
    def cookies(self) -> Mapping[str, str]:
        """By name."""
        ...


class Cookies:
    """Names and attributes of the cookies, and who may use them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._origin = server.settings.origin
        parts = urlsplit(self._origin)
        self._is_secure = parts.scheme == "https"
        # The prefix makes browsers insist on Secure, Path=/ and no Domain; without TLS they take no such cookie.
        # There, all ports of a machine share their cookies, so the name tells servers apart.
        self._session = "__Host-casekeeper" if self._is_secure else f"casekeeper-{parts.port or 80}"

    def session_of(self, call: Arrival) -> str | None:
        """The secret of the browser's session, if it came with one."""
        return call.cookies.get(self._session)

    def session(self, secret: str) -> str:
        """The `Set-Cookie` that begins a session."""
        return self._set(
            self._session, secret, int(self._server.identity.browser_sessions.lifetime.total_seconds())
        )

    def no_session(self) -> str:
        """The `Set-Cookie` that ends it."""
        return self._set(self._session, "", 0)

    def login_of(self, call: Arrival, state: str) -> str:
        """What the browser keeps of the login with this state; empty if it began none."""
        return call.cookies.get(self._login(state), "")

    def login(self, call: Arrival, state: str, sealed: str) -> Iterator[str]:
        """The `Set-Cookie`s that remember a login, and forget those that are too many."""
        yield self._set(self._login(state), sealed, int(LOGIN_LIFETIME.total_seconds()))
        begun = [name for name in call.cookies if name.startswith(f"{self._session}-login-")]
        for name in begun[: max(0, len(begun) - _LOGINS_AT_ONCE + 1)]:
            yield self._set(name, "", 0)

    def no_login(self, state: str) -> str:
        """The `Set-Cookie` that forgets a login."""
        return self._set(self._login(state), "", 0)

    def must_be_usable(self, hostname: str) -> None:
        """That cookies reach the right place, for a server that is called by this name.

        Raises:
            BrowserLoginsOff: The server is reached from elsewhere and does not know its own address: it would hand
                out cookies that travel without TLS.
        """
        if not self._server.settings.public_url and not _is_loopback(hostname):
            raise BrowserLoginsOff

    def must_come_from_here(self, call: Arrival) -> None:
        """Where the browser says that the request comes from; a session's change is refused where it does not say.

        Raises:
            ForeignPage: A page of another site asks, or sends the browser to something that it changes.
        """
        site, origin = call.headers.get("sec-fetch-site"), call.headers.get("origin")
        is_safe = call.method in _SAFE
        # Following a link from elsewhere, or typing an address, reads and shows; a page from elsewhere gets nothing.
        opens_page = is_safe and call.headers.get("sec-fetch-mode") == "navigate"
        if site not in (None, "same-origin") and not opens_page and not (is_safe and site == "none"):
            raise ForeignPage(f"Sec-Fetch-Site is {site[:20]!r}; this needs a page of {self._origin}.")
        # Every browser of today sends one of them with a change.
        if site is None and origin is None and not is_safe and self.session_of(call):
            raise ForeignPage(
                f"Neither Sec-Fetch-Site nor Origin says that this is a page of {self._origin}."
            )
        # A proxy may rewrite Host, and on one machine a server has several names; a page cannot choose either.
        here = f"{urlsplit(self._origin).scheme}://{call.headers.get('host', '')}"
        if origin is not None and origin not in (self._origin, here):
            raise ForeignPage(f"Origin is not {self._origin}.")

    def _login(self, state: str) -> str:
        # The name is the browser's to find the right one of several; what counts is inside.
        tag = "".join(c for c in state if c.isascii() and c.isalnum())[:12]
        return f"{self._session}-login-{tag}"

    def _set(self, name: str, value: str, seconds: int) -> str:
        secure = "; Secure" if self._is_secure else ""
        return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
