"""The HTTP application, put together."""

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from casekeeper.doors.http import browser, documents, monitor, openapi, sessions
from casekeeper.doors.http.problems import add_problem_handlers
from casekeeper.doors.http.size_limits import SizeLimits
from casekeeper.doors.http.verbs import verb_routes

VERSION = "0.1.0"

_ROUTERS = (
    sessions.router,
    documents.router,
    browser.open_,
    browser.guarded,
    monitor.catalogue,
    monitor.health,
    monitor.former,
)


class App(FastAPI):
    """FastAPI, but a verb's path leads to its handler in one look-up.

    FastAPI matches routes one after the other, behind layers that only other kinds of routes need (their own
    dependencies, exit stacks, telemetry); together they would cost more than most verbs.
    """

    verbs: dict[str, ASGIApp]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a verb's POST to its handler, everything else through FastAPI."""
        if scope["type"] == "http" and scope["method"] == "POST" and (verb := self.verbs.get(scope["path"])):
            scope["app"] = self
            await verb(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.describe(self)
        return self.openapi_schema


def build_app(lifespan: Any) -> FastAPI:
    """The application; `lifespan` puts the server into `app.state.server`."""
    app = App(
        title="casekeeper",
        version=VERSION,
        summary="Casefiles in which people and agents work under one access list and one verifiable record.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(SizeLimits)
    add_problem_handlers(app)
    verbs = list(verb_routes())
    app.verbs = {route.path: SizeLimits(route.app) for route in verbs}
    app.router.routes.extend(verbs)
    # Including the routers would match each route twice.
    for router in _ROUTERS:
        app.router.routes.extend(router.routes)
    return app
