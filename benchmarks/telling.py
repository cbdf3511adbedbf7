"""Whether a stranger can tell by the time of a refusal that something exists."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import Api, open_test_server

from benchmarks.figures import Row
from casekeeper.clock import utc_now
from casekeeper.ids import new_casefile_id, new_event_id, new_session_id

_PLACES = 25
_ASKED = 1_000
_WITHIN = 1.2
"""The medians may differ by a fifth."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class _Place:
    casefile_id: str
    session_id: str
    event_id: str


_TOOL = {"operation_type": "tool", "tool_name": "document_search", "parameters": {"query": "note"}}
_ASKING: dict[str, Callable[[_Place], Fields]] = {
    "/v1/casefiles/get": lambda place: {"casefile_id": place.casefile_id},
    "/v1/permissions/check": lambda place: {"casefile_id": place.casefile_id},
    "/v1/documents/list": lambda place: {"casefile_id": place.casefile_id},
    "/v1/sessions/get": lambda place: {"session_id": place.session_id},
    "/v1/operations/get": lambda place: {"event_id": place.event_id},
    "/v1/sessions/execute": lambda place: {"session_id": place.session_id, "operation": _TOOL},
}


def telling(folder: Path) -> list[Row]:
    """The medians of refusals, of what is somebody else's against what is not there, asked in turn."""
    return asyncio.run(_measured(folder))


async def _measured(folder: Path) -> list[Row]:
    async with (
        open_test_server(folder, limit_user=0, limit_casefile=0, limit_tool=0) as server,
        Api.of(server) as api,
    ):
        token = await api.token(await api.account("stranger@example.com"))
        places = itertools.cycle(await _places(api))
        return [await _compared(api, token, path, asking, places) for path, asking in _ASKING.items()]


async def _places(api: Api) -> list[_Place]:
    owner = await api.token(await api.account("owner@example.com"))
    places: list[_Place] = []
    for number in range(_PLACES):
        made = await api.ask("/v1/casefiles/create", {"title": f"Number {number}"}, token=owner)
        done = (await api.run(owner, "noop", casefile_id=made["casefile_id"])).json()["payload"]
        places.append(_Place(made["casefile_id"], done["session_id"], done["event_id"]))
    return places


def _nowhere() -> _Place:
    now = utc_now()
    casefile_id = new_casefile_id(now)
    return _Place(casefile_id, new_session_id(now, "owner@example.com", casefile_id), new_event_id(now))


async def _compared(
    api: Api, token: str, path: str, asking: Callable[[_Place], Fields], places: Iterator[_Place]
) -> Row:
    took: dict[bool, list[float]] = {True: [], False: []}
    for exists in itertools.islice(itertools.cycle(took), 2 * _ASKED):
        fields = asking(next(places) if exists else _nowhere())
        began = time.perf_counter()
        answer = await api.post(path, fields, token=token)
        took[exists].append(time.perf_counter() - began)
        if answer.status_code != 404:
            raise RuntimeError(f"{path} answered {answer.status_code} to a stranger")
    there, missing = (statistics.median(took[exists]) * 1000 for exists in (True, False))
    told = f"somebody else's p50 {there:.2f} ms, missing p50 {missing:.2f} ms"
    apart = max(there, missing) / min(there, missing)
    return Row(f"refused {path}", told, apart, against="each other", aim=_WITHIN, at_least=False)
