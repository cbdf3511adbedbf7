"""Two servers on one PostgreSQL: what one is told holds at the other."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.fakes.postgres import shared_postgres
from tests.support import Api, Workshop, open_test_server

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
            await here.ask("/v1/permissions/revoke", payload, token=house["owner"])
            async with asyncio.timeout(20):
                ended = (await running).json()["payload"]
            again = await there.run(house["viewer"], "noop", casefile_id=house.casefile_id)

    assert ended["error"]["type"] == "rights_lost"
    assert again.status_code == 404


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
