"""Pages of other sites in a real browser, in which somebody is logged in: what they can make it do to us.

On loopback, all ports share their cookies and count as one site, so a page of another port is the hardest case: it sends the
session's cookie, whatever `SameSite` says.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import uvicorn

from casekeeper.asgi import create_app
from tests.fakes.chromium import Chromium
from tests.support import Api, open_test_server

pytestmark = pytest.mark.timeout(180)

ANNA, PASSWORD = "anna@example.com", "a good password"

OWN = """<body><script>
async function post(path, payload) {
  const headers = {"Content-Type": "application/json"};
  return (await fetch(path, {method: "POST", body: JSON.stringify({payload}), headers})).status;
}
(async () => {
  const entered = await post("/v1/auth/session", {user_id: "anna@example.com", password: "a good password"});
  const made = await post("/v1/casefiles/create?by=own", {title: "own"});
  document.body.textContent = `entered ${entered} made ${made}`;
})();
</script></body>"""

FOREIGN = """<body><script>
const at = by => "TARGET/v1/casefiles/create?by=" + by;
const body = JSON.stringify({payload: {title: "foreign"}});
const form = (by, more) => `<form method=POST enctype="text/plain" action="${at(by)}" ${more ?? ""}>
  <input name='{"payload": {"title": "foreign' value='"}}'></form>`;
const sends = `<script>document.forms[0].submit()</scr` + `ipt>`;
function frame(by, sandbox) {
  const inside = document.createElement("iframe");
  if (sandbox) inside.setAttribute("sandbox", sandbox);
  inside.srcdoc = form(by) + sends;
  document.body.append(inside);
}
const quietly = {method: "POST", mode: "no-cors", credentials: "include", body};
fetch(at("plain-fetch"), quietly).catch(() => 0);
fetch(at("no-referrer"), {...quietly, referrerPolicy: "no-referrer"}).catch(() => 0);
fetch(at("json"), {...quietly, mode: "cors", headers: {"Content-Type": "application/json"}}).catch(() => 0);
navigator.sendBeacon(at("beacon"), body);
frame("frame");
frame("sandbox", "allow-scripts allow-forms");
setTimeout(() => {
  document.body.insertAdjacentHTML("beforeend", form("page", "id=last"));
  document.getElementById("last").submit();
}, 3000);
</script></body>"""


@dataclass
class Asked:
    """One change that was asked for, and what was answered."""

    by: str
    has_cookie: bool
    site: str | None
    status: int = 0
    body: bytes = b""

    @property
    def code(self) -> str:
        """The problem's code."""
        return json.loads(self.body).get("code", "")


@dataclass
class Site:
    """Pages, and behind them an application, of which it keeps what it is asked."""

    pages: dict[str, str]
    app: Any = None
    asked: list[Asked] = field(default_factory=list[Asked])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        if page := self.pages.get(scope["path"]):
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
            )
            await send({"type": "http.response.body", "body": page.encode()})
            return
        if self.app is None or scope["method"] != "POST":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        [by] = parse_qs(scope["query_string"].decode()).get("by", [""])
        asked = Asked(by, "cookie" in headers, headers.get("sec-fetch-site"))
        self.asked.append(asked)

        async def kept(message: Any) -> None:
            asked.status = message.get("status", asked.status)
            asked.body += message.get("body", b"")
            await send(message)

        await self.app(scope, receive, kept)


@asynccontextmanager
async def served(site: Site, listener: socket.socket) -> AsyncGenerator[None]:
    """The site on its port."""
    web = uvicorn.Server(uvicorn.Config(site, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.ensure_future(web.serve(sockets=[listener]))
    try:
        yield
    finally:
        web.should_exit = True
        await serving


@dataclass
class Two:
    """A browser in which anna is logged in at our server, and another server on the same machine."""

    browser: Chromium
    ours: Site
    theirs_port: int
    api: Api
    shown: str


@pytest.fixture
async def two(tmp_path: Path) -> AsyncGenerator[Two]:
    browser = Chromium(tmp_path / "profile")
    async with AsyncExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(2)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        here, there = (listener.getsockname()[1] for listener in listeners)
        server = await stack.enter_async_context(
            open_test_server(tmp_path / "data", public_url="", port=here)
        )
        api = await stack.enter_async_context(Api.of(server))
        await api.account(ANNA, password=PASSWORD)
        app = create_app()
        app.state.server = server
        ours = Site({"/own": OWN}, app)
        theirs = Site({"/foreign": FOREIGN.replace("TARGET", f"http://127.0.0.1:{here}")})
        await stack.enter_async_context(served(ours, listeners[0]))
        await stack.enter_async_context(served(theirs, listeners[1]))
        shown = await browser.open(f"http://127.0.0.1:{here}/own")
        yield Two(browser, ours, there, api, shown)


WAYS = ("plain-fetch", "no-referrer", "beacon", "frame", "sandbox", "page")
"""How a page sends what it may not read. What needs a preflight is never sent."""

# A page elsewhere, and a sandboxed one wherever it is, are not even sent the cookie.
WITHOUT_COOKIE = ("cross-site", False, 401, "token_missing")


async def test_a_page_of_ours_changes_something(two: Two) -> None:
    assert "entered 200 made 200" in two.shown


@pytest.mark.parametrize(
    ("host", "met"),
    [("127.0.0.1", ("same-site", True, 403, "foreign_page")), ("evil.example", WITHOUT_COOKIE)],
)
async def test_pages_from_elsewhere_change_nothing_whatever_they_send(
    two: Two, host: str, met: tuple[str, bool, int, str]
) -> None:
    two.ours.asked.clear()

    async with two.browser.showing(f"http://{host}:{two.theirs_port}/foreign"):
        # The page itself is sent last.
        while "page" not in {one.by for one in two.ours.asked if one.body}:
            await asyncio.sleep(0.05)

    found = {one.by: (one.site, one.has_cookie, one.status, one.code) for one in two.ours.asked}
    assert found == {**dict.fromkeys(WAYS, met), "sandbox": WITHOUT_COOKIE}
