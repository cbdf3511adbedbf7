"""The HTTP application, put together."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from casekeeper.doors.http import accounts, browser, casefiles, documents, monitor, sessions
from casekeeper.doors.http.dependencies import OpenRoute
from casekeeper.doors.http.examples import EXAMPLES
from casekeeper.doors.http.limits import SizeLimits
from casekeeper.doors.http.problems import MEDIA_TYPE, Problem, add_problem_handlers
from casekeeper.doors.http.verbs import describe_answer
from casekeeper.journal.events import ExecutionEvent

VERSION = "0.1.0"

_REFUSALS = {
    "401": "No believable caller.",
    "403": "The caller may not do this.",
    "404": "Missing, or hidden from the caller.",
    "405": "The route does not take this method.",
    "409": "The state does not allow it now.",
    "413": "Too large.",
    "422": "The request does not fit; `errors` names the fields.",
    "429": "Too many requests.",
    "431": "The headers are too large.",
    "500": "Something went wrong here; the incident id says where to look.",
    "503": "The store, a model or the server itself is not available.",
}

_OPEN = ("auth_token", "auth_refresh", "auth_login", "auth_callback", "auth_session")

_ROUTERS = (
    sessions.router,
    casefiles.router,
    documents.router,
    accounts.auth,
    accounts.router,
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
    # Including the routers would match each route twice.
    for router in _ROUTERS:
        app.router.routes.extend(router.routes)
    straight = (r for r in app.routes if isinstance(r, OpenRoute) and r.is_straight)
    app.verbs = {route.path: SizeLimits(route.app) for route in straight}
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1, with the refusals that every route shares and worked examples."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, ExecutionEvent):
        schema = TypeAdapter(model).json_schema(
            ref_template="#/components/schemas/{model}", mode="serialization"
        )
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        # Over https; docs/identity.md tells of its other name, and of the header that changes need.
        "browser": {"type": "apiKey", "in": "cookie", "name": "__Host-casekeeper"},
    }
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            is_open = not path.startswith("/v1") or operation["operationId"] in _OPEN
            operation["security"] = [] if is_open else [{"token": []}, {"browser": []}]
            for status, description in _REFUSALS.items():
                operation["responses"][status] = {"description": description, "content": problem}
            describe_answer(operation, schemas)
            if operation["operationId"] in EXAMPLES:
                content = operation["requestBody"]["content"]["application/json"]
                content["examples"] = EXAMPLES[operation["operationId"]]
    app.openapi_schema = document
    return document
