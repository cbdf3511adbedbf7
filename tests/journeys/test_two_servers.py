"""Two servers on one PostgreSQL: what one is told holds at the other."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.sessions.manager import At, Purpose
from casekeeper.sessions.streamed import StreamedFact
from tests.fakes.postgres import shared_postgres
from tests.fakes.redis import redis_url, running_redis
from tests.support import NOON, Api, House, SteppableClock, Workshop, bearer, open_test_server

pytestmark = pytest.mark.timeout(120)


async def test_a_revoke_at_one_server_stops_what_runs_at_the_other(tmp_path: Path) -> None:
    store, shop = await shared_postgres().migrated(), Workshop()
    async with open_test_server(tmp_path / "a", store=store) as one, Api.of(one) as here:
        house = await here.house()
        # They are one deployment: what one has signed, the other believes.
        shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
        async with (
            open_test_server(tmp_path / "b", workshop=shop, store=store) as other,
            Api.of(other) as there,
        ):
            work = there.run(house["viewer"], "waits", casefile_id=house.casefile_id)
            running = asyncio.ensure_future(work)
            await shop.until_running("waits")
            payload = {"casefile_id": house.casefile_id, "user_id": house.users["viewer"]}
            receipt = await here.ask("/v1/permissions/revoke", payload, token=house["owner"])
            async with asyncio.timeout(20):
                ended = (await running).json()["payload"]
            again = await there.run(house["viewer"], "noop", casefile_id=house.casefile_id)

    assert ended["error"]["type"] == "rights_lost"
    assert (receipt["stopped"], receipt["unconfirmed"]) == ([ended["event_id"]], {})
    assert again.status_code == 404


async def test_when_a_revoke_has_answered_the_other_server_lets_nobody_in(tmp_path: Path) -> None:
    store = await shared_postgres().migrated()
    async with open_test_server(tmp_path / "a", store=store) as one, Api.of(one) as here:
        house = await here.house()
        shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
        async with open_test_server(tmp_path / "b", store=store) as other, Api.of(other) as there:
            grant = {"casefile_id": house.casefile_id, "user_id": house.users["viewer"]}
            wanted = {"casefile_id": house.casefile_id}
            for number in range(6):
                token = await there.token(house.users["viewer"])
                before = await there.post("/v1/casefiles/get", wanted, token=token)
                await here.ask("/v1/permissions/revoke", grant, token=house["owner"])
                after = await there.post("/v1/casefiles/get", wanted, token=token)
                assert (before.status_code, after.status_code) == (200, 404), number
                await here.ask("/v1/permissions/grant", {**grant, "role": "viewer"}, token=house["owner"])


async def test_what_one_server_writes_a_follower_at_the_other_sees(tmp_path: Path) -> None:
    store = await shared_postgres().migrated()
    async with open_test_server(tmp_path / "a", store=store) as one, Api.of(one) as here:
        house = await here.house()
        shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
        async with open_test_server(tmp_path / "b", store=store) as other, Api.of(other) as there:
            session_id = await here.session(house["owner"], house.casefile_id)
            ran = await there.run(house["owner"], "noop", session_id=session_id)
            seen = await here.ask("/v1/sessions/get", {"session_id": session_id}, token=house["owner"])

    assert [event["event_id"] for event in seen["events"]["items"]][-1] == ran.json()["payload"]["event_id"]


async def test_with_blobs_in_the_database_two_servers_share_no_file_but_their_keys(tmp_path: Path) -> None:
    store, large = await shared_postgres().migrated(), b"Heating costs 2024\n" * 40_000
    async with open_test_server(tmp_path / "a", store=store, blobs="database") as one, Api.of(one) as here:
        house = await here.house()
        place, token = {"casefile_id": house.casefile_id}, house["editor"]
        shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
        async with (
            open_test_server(tmp_path / "b", store=store, blobs="database") as other,
            Api.of(other) as there,
        ):
            uploaded = await here.http.post(
                "/v1/documents/upload",
                params={**place, "filename": "costs.txt"},
                content=large,
                headers=bearer(token),
            )
            upload_id = uploaded.json()["payload"]["upload_id"]
            filed = await there.run(token, "document_import", {"upload_id": upload_id}, **place)
            [document] = (await here.ask("/v1/documents/list", place, token=token))["items"]
            content = await here.http.get(
                f"/v1/documents/{document['document_id']}/content", params=place, headers=bearer(token)
            )

    assert filed.json()["payload"]["success"]
    assert content.content == large
    assert not [path for name in "ab" for path in (tmp_path / name).glob("blobs/**/*") if path.is_file()]


@asynccontextmanager
async def two_servers(
    directory: Path, redis: str, **more: Any
) -> AsyncGenerator[tuple[tuple[Api, Workshop], ...]]:
    """Two servers on one PostgreSQL and one Redis."""
    store = await shared_postgres().migrated()
    async with AsyncExitStack() as stack:
        made: list[tuple[Api, Workshop]] = []
        for name in "ab":
            if name == "b":
                shutil.copytree(directory / "a" / "keys", directory / "b" / "keys")
            shop = Workshop()
            opened = open_test_server(
                directory / name, workshop=shop, store=store, redis=redis, workers=2, **more
            )
            server = await stack.enter_async_context(opened)
            made.append((await stack.enter_async_context(Api.of(server)), shop))
        yield tuple(made)


def is_degraded(door: Api) -> bool:
    """Whether a server knows that Redis is away."""
    assert door.server.bus is not None
    return not door.server.bus.is_up


async def test_two_servers_keep_one_limit(tmp_path: Path) -> None:
    clock = SteppableClock(NOON + timedelta(seconds=5))
    with redis_url() as redis:
        async with two_servers(tmp_path, redis, clock=clock, limit_user=200) as ((here, _), (there, _)):
            house = await here.house()

            answered = Counter[int]()

            async def caller(door: Api) -> None:
                for _ in range(20):
                    ran = await door.run(house["owner"], "noop", casefile_id=house.casefile_id)
                    answered[ran.status_code] += 1

            await asyncio.gather(*(caller(door) for door in (here, there) for _ in range(10)))

    assert set(answered) == {200, 429}
    assert 0.95 * 200 <= answered[200] <= 1.05 * 200


async def test_no_request_fails_while_redis_dies_and_comes_back(tmp_path: Path) -> None:
    with running_redis() as redis:
        async with two_servers(tmp_path, redis.url) as ((here, _), (there, _)):
            house = await here.house()
            stop = asyncio.Event()

            async def caller(door: Api) -> set[int]:
                seen = set[int]()
                while not stop.is_set():
                    ran = await door.run(house["owner"], "noop", casefile_id=house.casefile_id)
                    ready = await door.get("/readyz")
                    seen |= {ran.status_code, ready.status_code}
                return seen

            callers = [asyncio.ensure_future(caller(door)) for door in (here, there) for _ in range(3)]
            for is_up in (False, True, False, True):
                if is_up:
                    redis.start()
                else:
                    redis.kill()
                async with asyncio.timeout(30):
                    while any(is_degraded(door) == is_up for door in (here, there)):
                        await asyncio.sleep(0.02)
            stop.set()
            seen = set[int]().union(*await asyncio.gather(*callers))

    assert seen == {200}


async def test_a_follower_is_woken_by_what_the_other_server_writes(tmp_path: Path) -> None:
    with redis_url() as redis:
        async with two_servers(tmp_path, redis) as ((here, _), (there, _)):
            house = await here.house()
            session_id = await here.session(house["owner"], house.casefile_id)
            # Sooner than by looking there, which this server would do within half a second.
            with here.server.sessions.reading.watch(session_id) as followed:
                await there.run(house["owner"], "noop", session_id=session_id)
                assert await followed.wait(30) is not None


async def test_followers_get_what_the_other_server_writes_and_its_other_sessions_wake_nobody(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (here, there, house, _):
        sessions = [await here.session(house["owner"], house.casefile_id) for _ in range(3)]
        manager, reading = here.server.sessions.manager, here.server.sessions.reading
        caller = await here.server.identity.authenticator.authenticate(house["owner"])

        async def followed(session_id: str) -> list[int]:
            context = await manager.validate_and_get_session(caller, At(session_id), Purpose.READ)
            seen: list[int] = []
            async with aclosing(reading.follow(context, 0)) as stream:
                async for item in stream:
                    assert isinstance(item, StreamedFact)
                    seen.append(item.seq)
                    if item.seq == 5:
                        break
            return seen

        with reading.watch(sessions[2]) as bystander:
            bystander.seen = 1
            following = [asyncio.create_task(followed(one)) for one in sessions[:2] * 2]
            for session_id in sessions[:2] * 2:
                await there.run(house["owner"], "noop", session_id=session_id)
            async with asyncio.timeout(30):
                seen = await asyncio.gather(*following)
            assert not bystander.has_news

    assert seen == [list(range(1, 6))] * 4


@asynccontextmanager
async def pair(directory: Path) -> AsyncGenerator[tuple[Api, Api, House, Workshop]]:
    """Two servers on one PostgreSQL and nothing else; the workshop is the second one's."""
    store, shop = await shared_postgres().migrated(), Workshop()
    async with open_test_server(directory / "a", store=store) as one, Api.of(one) as here:
        house = await here.house()
        shutil.copytree(directory / "a" / "keys", directory / "b" / "keys")
        async with (
            open_test_server(directory / "b", workshop=shop, store=store) as other,
            Api.of(other) as there,
        ):
            yield here, there, house, shop


async def test_an_operation_is_cancelled_from_another_server(tmp_path: Path) -> None:
    async with pair(tmp_path) as (here, there, house, shop):
        work = there.run(house["editor"], "waits", casefile_id=house.casefile_id)
        running = asyncio.ensure_future(work)
        await shop.until_running("waits")
        found = await here.ask(
            "/v1/events/query",
            {"casefile_id": house.casefile_id, "view": "journal", "kinds": ["started"]},
            token=house["editor"],
        )
        event_id = found["items"][0]["event_id"]

        cancelled = await here.post(
            "/v1/operations/cancel", {"event_id": event_id, "reason": "Enough."}, token=house["editor"]
        )
        ended = (await running).json()["payload"]

    assert cancelled.json()["status"] == "failed"
    for told in (cancelled.json()["payload"], ended):
        assert (told["error"]["type"], told["error"]["message"]) == ("cancelled", "Enough.")


async def test_a_session_is_closed_with_what_runs_in_it_at_another_server(tmp_path: Path) -> None:
    async with pair(tmp_path) as (here, there, house, shop):
        session_id = await here.session(house["editor"], house.casefile_id)
        running = asyncio.ensure_future(there.run(house["editor"], "waits", session_id=session_id))
        await shop.until_running("waits")

        closed = await here.post(
            "/v1/sessions/close", {"session_id": session_id, "cancel": True}, token=house["editor"]
        )
        ended = (await running).json()["payload"]

    assert closed.status_code == 200, closed.text
    assert ended["error"]["type"] == "cancelled"


async def test_a_repeat_at_another_server_waits_for_the_first_run(tmp_path: Path) -> None:
    async with pair(tmp_path) as (here, there, house, shop):
        call = {"casefile_id": house.casefile_id, "request_id": "once"}
        first = asyncio.ensure_future(there.run(house["editor"], "waits", **call))
        await shop.until_running("waits")
        again = asyncio.ensure_future(here.run(house["editor"], "waits", **call))
        early, _ = await asyncio.wait((again,), timeout=0.5)
        shop.release.set()
        answers = [(await first).json(), (await again).json()]

    assert not early
    assert [answer["status"] for answer in answers] == ["completed"] * 2
    assert answers[0]["payload"]["event_id"] == answers[1]["payload"]["event_id"]
    assert shop.runs["waits"] == 1
