"""Health, catalogue, and what is left of the former API."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from casekeeper.doors.http.dependencies import GuardedRoute, Inbound, OpenRoute
from casekeeper.doors.http.envelope import Json, dumps
from casekeeper.errors import RouteGone, StoreUnavailable
from casekeeper.ids import CasefileId
from casekeeper.operations.operation import CatalogEntry
from casekeeper.paging import Page

health = APIRouter(route_class=OpenRoute, tags=["health"])
catalogue = APIRouter(route_class=GuardedRoute, tags=["catalogue"])
former = APIRouter(include_in_schema=False)


@health.get("/livez", operation_id="livez")
async def livez() -> Response:
    """Whether the process answers; looks at nothing else."""
    return Json(b'{"status":"ok"}')


@health.get("/readyz", operation_id="readyz")
async def readyz(door: Inbound) -> Response:
    """Whether calls can be served: the store reads and writes, and the server is not stopping.

    `degraded` names what is unavailable without any call being refused for it.
    """
    if not door.server.is_ready:
        raise StoreUnavailable("The server is stopping, or its disk has failed.")
    await door.server.storage.accounts.head()
    bus = door.server.bus
    return Json(b'{"status":"ok"}' if bus is None or bus.is_up else b'{"status":"ok","degraded":["redis"]}')


@catalogue.get("/v1/catalog", operation_id="catalog", response_model=Page[CatalogEntry])
async def catalog(
    door: Inbound,
    casefile_id: Annotated[
        CasefileId | None, Query(description="Also those that only this casefile has.")
    ] = None,
) -> Response:
    """All operations: what they do, take and need."""
    return Json(
        dumps(
            Page[CatalogEntry](items=await door.server.execution.catalogue.entries(door.caller, casefile_id))
        )
    )


_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@former.api_route("/v1/tool-sessions", methods=_METHODS)
@former.api_route("/v1/tool-sessions/{rest:path}", methods=_METHODS)
async def tool_sessions(request: Request) -> Response:
    """The former tool sessions."""
    name = "execute" if request.url.path.rstrip("/").endswith("/execute") else "create"
    raise RouteGone(f"/v1/sessions/{name}")


@former.api_route("/v1/chat", methods=_METHODS)
@former.api_route("/v1/chat/{rest:path}", methods=_METHODS)
async def chat(request: Request) -> Response:
    """The former chat."""
    raise RouteGone("/v1/sessions/execute")
