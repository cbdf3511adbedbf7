"""All ways to read agree on who may read what, in worlds of chance. `WORLDS_SEED=n` replays one, which is printed."""

import os
import random
import secrets
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import Api, Json, SteppableClock, bearer, listening, open_test_server

# On a busy machine; alone it takes some seconds.
pytestmark = pytest.mark.timeout(300)

USERS = [f"{name}@example.com" for name in ("ada", "ben", "cyd", "dan")]
ROLES = ("viewer", "editor", "admin")
LOOKS, STEPS_BETWEEN, WAYS = 12, 3, 4


@dataclass
class Place:
    """A casefile as the test keeps it, and what lies in it."""

    casefile_id: str
    owner: str
    session_id: str
    event_id: str
    document_id: str
    grants: dict[str, tuple[str, datetime | None]] = field(default_factory=dict[str, Any])
    is_public: bool = False
    is_deleted: bool = False

    def sees(self, user_id: str, now: datetime) -> str:
        """What somebody is here: member, public reader, or nobody."""
        if self.is_deleted:
            return "nobody"
        if user_id == self.owner:
            return "member"
        _, until = self.grants.get(user_id, ("", now))
        if until is None or until > now:
            return "member"
        return "public" if self.is_public else "nobody"


@dataclass
class World:
    """Casefiles, users, and a token each that gathers scopes, as clients keep theirs."""

    api: Api
    url: str
    clock: SteppableClock
    chance: random.Random
    places: list[Place] = field(default_factory=list[Place])
    kept: dict[str, str] = field(default_factory=dict[str, str])

    async def ask(self, user_id: str, path: str, payload: Json) -> Any:
        """What somebody is answered who asks with a new token."""
        return await self.api.ask(path, payload, token=await self.api.token(user_id))

    async def settle(self, title: str, owner: str) -> None:
        """A new casefile with a session, a document and an operation in it."""
        casefile_id = (await self.ask(owner, "/v1/casefiles/create", {"title": title}))["casefile_id"]
        opened = {"casefile_id": casefile_id, "visibility": "casefile"}
        session_id = (await self.ask(owner, "/v1/sessions/create", opened))["session_id"]
        note = {"tool_name": "note_add", "parameters": {"title": title, "text": f"A note in {title}."}}
        work = {"session_id": session_id, "operation": {"operation_type": "tool", **note}}
        done = await self.ask(owner, "/v1/sessions/execute", work)
        listed = await self.ask(owner, "/v1/documents/list", {"casefile_id": casefile_id})
        document_id = listed["items"][0]["document_id"]
        self.places.append(Place(casefile_id, owner, session_id, done["event_id"], document_id))

    async def publish(self, place: Place) -> None:
        """Turn a casefile public, or a public one back."""
        about = {"casefile_id": place.casefile_id}
        place.is_public = not place.is_public
        role = "viewer" if place.is_public else "none"
        version = (await self.ask(place.owner, "/v1/casefiles/get", about))["version"]
        payload = {**about, "public_role": role, "expected_version": version}
        await self.ask(place.owner, "/v1/casefiles/update", payload)

    async def step(self) -> None:
        """Something happens."""
        place = self.chance.choice([one for one in self.places if not one.is_deleted])
        others = [user for user in USERS if user != place.owner]
        user_id = self.chance.choice(others)
        about = {"casefile_id": place.casefile_id}
        kinds = ("grant", "brief", "revoke", "public", "transfer", "later", "delete")
        match self.chance.choices(kinds, (6, 10, 5, 3, 2, 8, 0.3))[0]:
            case "grant" | "brief" as kind:
                role = self.chance.choice(ROLES)
                until = self.clock() + timedelta(seconds=20) if kind == "brief" else None
                payload = {
                    **about,
                    "user_id": user_id,
                    "role": role,
                    "expires_at": until and until.isoformat(),
                }
                await self.ask(place.owner, "/v1/permissions/grant", payload)
                place.grants[user_id] = (role, until)
            case "revoke":
                await self.ask(place.owner, "/v1/permissions/revoke", {**about, "user_id": user_id})
                place.grants.pop(user_id, None)
            case "public":
                await self.publish(place)
            case "transfer":
                await self.ask(place.owner, "/v1/permissions/transfer", {**about, "user_id": user_id})
                place.grants.pop(user_id, None)
                place.grants[place.owner] = ("admin", None)
                place.owner = user_id
            case "later":
                self.clock.step(seconds=self.chance.choice((5, 15, 30)))
            case _:
                await self.ask(place.owner, "/v1/casefiles/delete", about)
                place.is_deleted = True


Way = Callable[[World, Place, str], Any]
"""How one may try to read something with a token: the response."""


def _post(path: str, fields: Callable[[Place], Json]) -> Way:
    return lambda world, place, token: world.api.post(path, fields(place), token=token)


def _get(path: Callable[[Place], str]) -> Way:
    return lambda world, place, token: world.api.get(path(place), token=token)


def _tool(place: Place) -> Json:
    search = {"operation_type": "tool", "tool_name": "document_search", "parameters": {"query": "note"}}
    return {"casefile_id": place.casefile_id, "operation": search}


async def _stream(world: World, place: Place, token: str) -> Any:
    """A live stream's response; its head is enough."""
    async with (
        httpx2.AsyncClient(base_url=world.url, timeout=10) as http,
        http.stream(
            "GET", f"/v1/sessions/{place.session_id}/events/stream", headers=bearer(token)
        ) as response,
    ):
        if response.status_code != 200:
            await response.aread()
        return response


_CASEFILE: Callable[[Place], Json] = lambda place: {"casefile_id": place.casefile_id}  # noqa: E731

FOR_READERS: dict[str, Way] = {
    "casefile": _post("/v1/casefiles/get", _CASEFILE),
    "check": _post("/v1/permissions/check", _CASEFILE),
    "documents": _post("/v1/documents/list", _CASEFILE),
    "document": _post(
        "/v1/documents/get", lambda place: {**_CASEFILE(place), "document_id": place.document_id}
    ),
    "content": _get(
        lambda place: f"/v1/documents/{place.document_id}/content?casefile_id={place.casefile_id}"
    ),
}
FOR_MEMBERS: dict[str, Way] = {
    "grants": _post("/v1/permissions/list", _CASEFILE),
    "session": _post("/v1/sessions/get", lambda place: {"session_id": place.session_id}),
    "sessions": _post("/v1/sessions/list", _CASEFILE),
    "events": _post("/v1/events/query", _CASEFILE),
    "operation": _post("/v1/operations/get", lambda place: {"event_id": place.event_id}),
    "outputs": _get(lambda place: f"/v1/operations/{place.event_id}/outputs"),
    "record": _get(lambda place: f"/v1/sessions/{place.session_id}/record"),
    "stream": _stream,
    "search": _post("/v1/sessions/execute", _tool),
}
MISSING = Place("cf_260101_aaaaaa", "", "ts_260101_aaaaaaaa_aaaaaa", "evt_" + "0" * 25, "doc_" + "0" * 25)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    drawn = int(os.environ.get("WORLDS_SEED") or secrets.randbelow(1_000_000))  # noqa: TID251 - not a setting of casekeeper
    sys.stdout.write(f"WORLDS_SEED={drawn}\n")
    clock = SteppableClock()
    async with (
        open_test_server(tmp_path / "data", clock=clock) as server,
        Api.of(server) as api,
        listening(server) as url,
    ):
        made = World(api, url, clock, random.Random(drawn))
        for user_id in USERS:
            await api.account(user_id)
        for number in range(4):
            await made.settle(f"Number {number}", made.chance.choice(USERS))
        # What chance may leave out: a first look finds members, public readers and strangers.
        await made.publish(made.places[0])
        for user_id in USERS:
            made.kept[user_id] = await kept_token(made, user_id)
        yield made


async def test_all_ways_to_read_agree(world: World):
    seen = {"member": 0, "public": 0, "nobody": 0}
    for number in range(LOOKS):
        for _ in range(STEPS_BETWEEN if number else 0):
            await world.step()
        for user_id in USERS:
            for place in world.places:
                what = place.sees(user_id, world.clock())
                seen[what] += 1
                for token in (world.kept[user_id], await world.api.token(user_id)):
                    await look(world, place, token, what)
            await look_at_lists(world, user_id)
            if world.chance.random() < 0.4:
                # What it carries now is old by the next look.
                world.kept[user_id] = await kept_token(world, user_id)
    assert min(seen.values()) > 0, seen


async def kept_token(world: World, user_id: str) -> str:
    """The token of a client that swaps it whenever it is told to, so that it carries all that was resolved with it."""
    token = await world.api.token(user_id)
    for place in world.places:
        answer = await world.api.post("/v1/sessions/get", {"session_id": place.session_id}, token=token)
        if answer.status_code == 200 and (updated := answer.json()["payload"]["updated_scopes"]):
            token = updated["token"]
    return token


async def look(world: World, place: Place, token: str, what: str) -> None:
    """Try some of the ways into one casefile."""
    for name, way in world.chance.sample(list((FOR_READERS | FOR_MEMBERS).items()), WAYS):
        response = await way(world, place, token)
        may = what == "member" or (what == "public" and name in FOR_READERS)
        said = (name, what, response.status_code)
        if may:
            assert response.status_code == 200, said
            continue
        assert response.status_code == (403 if what == "public" else 404), said
        if what == "nobody":
            missing = await way(world, MISSING, token)
            assert missing.status_code == 404
            assert told(response, place) == told(missing, MISSING), said


def told(response: httpx2.Response, place: Place) -> Json:
    """A refusal without the ids that were asked for and the call's own."""
    text = response.text
    for name in ("casefile_id", "session_id", "event_id", "document_id"):
        text = text.replace(getattr(place, name), name)
    headers = {
        name: value for name, value in response.headers.items() if name in ("content-type", "retry-after")
    }
    return {**httpx2.Response(200, text=text).json(), "request_id": None, "headers": headers}


async def look_at_lists(world: World, user_id: str) -> None:
    """What is listed across casefiles is what one is a member of, no more and no less."""
    now = world.clock()
    mine = {place.casefile_id for place in world.places if place.sees(user_id, now) == "member"}
    for token in (world.kept[user_id], await world.api.token(user_id)):
        for path in ("/v1/casefiles/list", "/v1/sessions/list", "/v1/events/query"):
            answer = await world.api.ask(path, {"limit": 200}, token=token)
            assert {item["casefile_id"] for item in answer["items"]} == mine, path
