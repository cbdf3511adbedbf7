"""What the version before has written is migrated, read, verified and gone on with, on each store."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from casekeeper.cli.output import Output
from casekeeper.cli.upkeep import migrate
from casekeeper.settings import Settings
from casekeeper.verify import verify
from tests.fakes.firestore import Emulator, running_emulator
from tests.fakes.postgres import shared_postgres
from tests.fakes.version_before import Left, left_on_firestore, left_on_postgresql, left_on_sqlite
from tests.support import Api, Json, SteppableClock, Workshop, bearer, open_test_server, stored

pytestmark = pytest.mark.timeout(180)

# Within the 24 hours for which a request id is kept.
SOON = timedelta(hours=1)
REPLAYED = "Idempotency-Replayed"


@pytest.fixture(scope="module")
def emulator() -> Generator[Emulator]:
    """A Firestore emulator."""
    with running_emulator() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "firestore"])
async def left(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Left]:
    """A store as the version before left it, after `casekeeper migrate`."""
    match request.param:
        case "sqlite":
            found = left_on_sqlite(tmp_path / "data")
        case "postgresql":
            found = await left_on_postgresql(shared_postgres(), tmp_path / "data")
        case _:
            found = left_on_firestore(request.getfixturevalue("emulator"), tmp_path / "data")
    await migrate(Settings(data=found.data, store=found.store), Output(as_json=True))
    yield found
    if request.param == "postgresql":
        await shared_postgres().drop(found.store)


@asynccontextmanager
async def opened(left: Left, shop: Workshop | None = None) -> AsyncGenerator[Api]:
    """A server of this version on it, some time later."""
    clock = SteppableClock(left.now + SOON)
    async with (
        open_test_server(left.data, store=left.store, clock=clock, workshop=shop) as server,
        Api.of(server) as api,
    ):
        yield api


async def log_in(api: Api, left: Left, name: str) -> str:
    """The access token of somebody who logs in with the password of then."""
    user = left.story["users"][name]
    login = {"user_id": user["user_id"], "password": user["password"]}
    answered = await api.post("/v1/auth/token", login)
    assert answered.status_code == 200, answered.text
    return answered.json()["payload"]["access_token"]


async def repeat(api: Api, token: str, claimed: Json, body: str | None = None) -> httpx2.Response:
    """What somebody asked the version before, sent again to the byte, or with another body."""
    headers = {**bearer(token), "content-type": "application/json"}
    return await api.http.post(claimed["path"], content=(body or claimed["body"]).encode(), headers=headers)


async def ended(api: Api, token: str, event_id: str) -> Any:
    """What became of an operation, as soon as it has ended: that its process is gone may take a while to tell."""
    async with asyncio.timeout(60):
        while True:
            answered = await api.post("/v1/operations/get", {"event_id": event_id}, token=token)
            if answered.status_code == 200:
                return answered.json()["payload"]
            assert answered.status_code == 202, answered.text
            await asyncio.sleep(0.1)


async def test_its_records_verify_and_what_it_left_open_is_closed(left: Left) -> None:
    async with opened(left) as api:
        token = await log_in(api, left, "owner")
        event_id = left.story["left_open"]["answer"]["payload"]["event_id"]
        outcome = await ended(api, token, event_id)
        place = {"casefile_id": left.story["casefile_id"]}
        wanted = place | {"view": "journal", "kinds": ["interrupted", "denied"]}
        facts = (await api.ask("/v1/events/query", wanted, token=token))["items"]
        session_ids = await stored(api.server, "sessions", "session_id", "casefile_id")
        lines = [
            line
            for session_id, casefile_id in session_ids
            async for line in api.server.sessions.recording.of_session(casefile_id, session_id)
        ]
    report = verify(lines)

    assert (outcome["success"], outcome["error"]["type"]) == (False, "process_gone")
    assert sorted((fact["kind"], fact["operation_name"]) for fact in facts) == [
        ("denied", left.story["denied"]["operation_name"]),
        ("interrupted", "nested"),
        ("interrupted", "waits"),
    ]
    assert (report.findings, report.exit_code) == ((), 0)
    assert {one.session_id for one in report.sessions} == {session_id for session_id, _ in session_ids}
    assert not [one.session_id for one in report.sessions if one.open]
    assert {*left.story["sessions"].values()} <= {session_id for session_id, _ in session_ids}


async def test_people_log_in_as_before_and_may_what_they_might(left: Left) -> None:
    users, place = left.story["users"], {"casefile_id": left.story["casefile_id"]}
    async with opened(left) as api:
        tokens = {name: await log_in(api, left, name) for name in users}
        reading = {
            name: (await api.post("/v1/casefiles/get", place, token=token)).status_code
            for name, token in tokens.items()
        }
        writing = {
            name: (await api.run(token, "touch", **place)).status_code for name, token in tokens.items()
        }
        members = (await api.ask("/v1/permissions/list", place, token=tokens["owner"]))["items"]
        old = users["owner"]["refresh_token"]
        refreshed = await api.post("/v1/auth/refresh", {"refresh_token": old})
        by_key = await api.post("/v1/auth/token", {"api_key": left.story["api_key"]["api_key"]})

    # Anybody with an account may read it: it has a public reader's role.
    assert reading == dict.fromkeys(users, 200)
    assert writing == {"owner": 200, "reader": 403, "revoked": 403, "passing": 200}
    assert [_named(member) for member in members] == [_named(member) for member in left.story["members"]]
    assert (refreshed.status_code, by_key.status_code) == (200, 200), refreshed.text + by_key.text


def _named(member: Json) -> Json:
    return {name: member[name] for name in ("user_id", "role", "expires_at", "granted_by", "granted_at")}


async def test_its_documents_are_found_and_its_answers_read(left: Left) -> None:
    place, agent = {"casefile_id": left.story["casefile_id"]}, left.story["agent"]
    async with opened(left) as api:
        token = await log_in(api, left, "owner")
        query = {"query": left.story["imported"]["query"]}
        found = (await api.run(token, "document_search", query, **place)).json()["payload"]["outputs"]
        answer = await ended(api, token, agent["answer"]["event_id"])
        asked = {"operation_type": "agent", **{name: agent[name] for name in ("agent_name", "prompt")}}
        again = {"session_id": left.story["sessions"]["open"], "operation": asked}
        goes_on = await api.ask("/v1/sessions/execute", again, token=token)
        conversation = await api.server.storage.events.conversation(left.story["sessions"]["open"])
        nested = await ended(api, token, left.story["nested"])

    assert {(item["document_id"], item["title"]) for item in found["items"]} == {
        (document_id, title) for document_id, title in left.story["imported"]["found"]
    }
    assert answer["outputs"] == agent["answer"]["outputs"]
    assert goes_on["outputs"]["response"] == agent["answer"]["outputs"]["response"]
    assert conversation is not None
    assert nested["outputs"] == "inside"


async def test_a_request_that_it_has_done_is_not_done_again(left: Left) -> None:
    shop = Workshop()
    async with opened(left, shop) as api:
        for claimed in left.story["ended"]:
            token = await log_in(api, left, claimed["user"])
            before = claimed["answer"]["payload"]
            envelope = json.loads(claimed["body"])
            envelope["payload"]["operation"]["parameters"] |= {"text": "Other.", "value": "other"}

            again = await repeat(api, token, claimed)
            other = await repeat(api, token, claimed, json.dumps(envelope))

            told = again.json()["payload"]
            assert (again.status_code, again.headers.get(REPLAYED)) == (200, "true"), again.text
            assert {name: told[name] for name in ("event_id", "outputs", "success", "session_id")} == {
                name: before[name] for name in ("event_id", "outputs", "success", "session_id")
            }
            assert (other.status_code, other.json()["code"]) == (422, "request_id_reused")
    assert shop.runs["echo"] == 0


async def test_a_request_that_it_was_at_when_it_died_is_answered_by_its_end(left: Left) -> None:
    shop, claimed = Workshop(), left.story["left_open"]
    async with opened(left, shop) as api:
        token = await log_in(api, left, claimed["user"])
        event_id = claimed["answer"]["payload"]["event_id"]
        await ended(api, token, event_id)

        again = await repeat(api, token, claimed)
        other = await repeat(api, token, claimed, claimed["body"].replace('"waits"', '"noop"'))

    told = again.json()["payload"]
    assert again.headers.get(REPLAYED) == "true"
    assert (told["event_id"], told["success"], told["error"]["type"]) == (event_id, False, "process_gone")
    assert (other.status_code, other.json()["code"]) == (422, "request_id_reused")
    assert not shop.runs
