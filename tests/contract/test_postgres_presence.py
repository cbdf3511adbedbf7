"""Which processes on one PostgreSQL live, and whose operations are left behind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from casekeeper.acl_feed import Change
from casekeeper.journal.commits import Commit
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.postgres.locks import lock_number
from casekeeper.storage.store import Storage
from tests.contract.shelf import GUEST, NOW, Shelf
from tests.fakes.postgres import running_postgres, selected
from tests.fakes.proxy import Proxy, proxy_to

pytestmark = pytest.mark.timeout(120)

# The server of the tests has not been up for long, and nobody was there before it.
_SETTLED = StoreLimits(settle=timedelta(0))


def process(url: str, directory: Path, owner: str, limits: StoreLimits = _SETTLED, **more: Any):
    """The store as a process of this name has it."""
    return open_storage(url, directory, lambda _: None, limits=limits, owner=owner, **more)


async def connections_of(url: str, owner: str) -> set[int]:
    """The server's processes that hold the lock in somebody's name."""
    held = await selected(
        url,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted "
        f"AND (classid::bigint << 32) | objid::bigint = {lock_number(f'process {owner}')}",
    )
    return {pid for (pid,) in held}


async def cut(url: str, pids: set[int]) -> None:
    """End connections as an operator, a proxy or a crash would."""
    await selected(url, f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{sorted(pids)}) AS pid")


async def back(url: str, owner: str, gone: set[int]) -> None:
    """Returns when a process holds its lock by two connections again that are not these."""
    async with asyncio.timeout(20):
        while len(await connections_of(url, owner) - gone) < 2:
            await asyncio.sleep(0.01)


async def owners_of_orphans(store: Storage, asking: str) -> set[str]:
    """Whose operations are taken for orphans."""
    return {orphan.row.owner for orphan in await store.events.orphans(asking, 10)}


async def test_only_what_a_dead_process_left_open_is_an_orphan(database: str, tmp_path: Path):
    async with process(database, tmp_path, "alive") as here:
        shelf = await Shelf.filled(here)
        async with process(database, tmp_path, "other") as there:
            for owner in ("alive", "other", "dead"):
                await here.commits.commit(shelf.opening(shelf.started(), owner=owner))

            assert await owners_of_orphans(there, "other") == {"dead"}
        # It has left in order, but what it left open will not be ended by anybody. The server may notice a little later.
        async with asyncio.timeout(60):
            while await owners_of_orphans(here, "alive") != {"dead", "other"}:
                await asyncio.sleep(0.1)


async def test_what_the_living_run_does_not_hide_what_the_dead_left_open(database: str, tmp_path: Path):
    async with process(database, tmp_path, "alive") as here, process(database, tmp_path, "other"):
        shelf = await Shelf.filled(here)
        lost = shelf.started(started_at=NOW - timedelta(hours=1))
        await here.commits.commit(shelf.opening(lost, owner="dead"))
        for _ in range(3):
            await here.commits.commit(shelf.opening(shelf.started(), owner="other"))

        found = await here.events.orphans("alive", 2)

    assert [orphan.row.event_id for orphan in found] == [lost.event_id]


async def test_a_death_is_noticed_without_being_asked_about(database: str, tmp_path: Path):
    async with process(database, tmp_path, "alive") as here:
        shelf = await Shelf.filled(here)
        async with process(database, tmp_path, "other") as there:
            await there.commits.commit(shelf.opening(shelf.started(), owner="other"))
            with pytest.raises(TimeoutError):
                # Long enough for it to be taken for dead by mistake.
                await asyncio.wait_for(here.is_sweep_due.wait(), 2.5)

        await asyncio.wait_for(here.is_sweep_due.wait(), 20)

        assert await owners_of_orphans(here, "alive") == {"other"}


@pytest.mark.parametrize("number", [0, 1])
async def test_of_two_connections_one_can_be_cut_and_the_other_holds_the_lock(
    database: str, tmp_path: Path, number: int
):
    async with process(database, tmp_path, "cut off"):
        before = await connections_of(database, "cut off")
        one = sorted(before)[number]

        await cut(database, {one})
        after = await connections_of(database, "cut off")
        await back(database, "cut off", {one})

    assert len(before) == 2
    assert before - after <= {one}


async def test_a_process_whose_connections_are_all_cut_is_not_taken_for_dead(database: str, tmp_path: Path):
    pushed: list[Change] = []
    async with (
        process(database, tmp_path, "cut off", heard=pushed.extend) as one,
        process(database, tmp_path, "here") as other,
    ):
        shelf = await Shelf.filled(one)
        await one.commits.commit(shelf.opening(shelf.started(), owner="cut off"))
        before = await connections_of(database, "cut off")

        await cut(database, before)
        found = [await owners_of_orphans(other, "here") for _ in range(25) if not await asyncio.sleep(0.1)]
        await back(database, "cut off", before)
        pushed.clear()
        await shelf.commit(Commit(records=(shelf.change(GUEST, shelf.casefile_id),)))
        async with asyncio.timeout(20):
            while not pushed:
                await asyncio.sleep(0.01)

        assert found == [set[str]()] * 25
        assert not other.is_sweep_due.is_set()
        assert pushed[0].user_id == GUEST


async def test_until_all_can_have_come_back_to_a_server_nobody_is_taken_for_dead(tmp_path: Path):
    limits = StoreLimits(settle=timedelta(seconds=3))
    with running_postgres() as server:
        url = await server.migrated()
        async with process(url, tmp_path, "here", limits) as store:
            shelf = await Shelf.filled(store)
            await shelf.commit(shelf.opening(shelf.started(), owner="slow"))
            async with asyncio.timeout(30):
                while await owners_of_orphans(store, "here") != {"slow"}:
                    await asyncio.sleep(0.05)
            server.kill()
            server.start()
            await back(url, "here", set())
            after = await owners_of_orphans(store, "here")
            # Another that starts now has not seen the server go away.
            async with process(url, tmp_path, "new", limits) as new:
                seen_by_the_new = await owners_of_orphans(new, "new")
                async with process(url, tmp_path, "slow", limits):
                    await asyncio.sleep(3.5)
                    once_it_is_back = [
                        await owners_of_orphans(store, "here"),
                        await owners_of_orphans(new, "new"),
                    ]
            async with asyncio.timeout(30):
                while await owners_of_orphans(store, "here") != {"slow"}:
                    await asyncio.sleep(0.05)

    assert (after, seen_by_the_new, once_it_is_back) == (set(), set(), [set(), set()])


@asynccontextmanager
async def by_proxy(database: str) -> AsyncGenerator[tuple[str, Proxy]]:
    """Another address of the database, behind a proxy."""
    parts = urlsplit(database)
    user, at, host = parts.netloc.rpartition("@")
    async with proxy_to(host) as proxy:
        yield parts._replace(netloc=f"{user}{at}{proxy.host}").geturl(), proxy


async def test_a_process_whose_way_is_cut_for_a_moment_is_not_taken_for_dead(database: str, tmp_path: Path):
    async with (
        by_proxy(database) as (address, proxy),
        process(address, tmp_path, "cut off") as one,
        process(database, tmp_path, "here") as other,
    ):
        shelf = await Shelf.filled(one)
        await one.commits.commit(shelf.opening(shelf.started(), owner="cut off"))
        before = await connections_of(database, "cut off")

        await proxy.cut()
        await asyncio.sleep(0.2)
        await proxy.mend()
        found = [await owners_of_orphans(other, "here") for _ in range(25) if not await asyncio.sleep(0.1)]
        await back(database, "cut off", before)

    assert found == [set[str]()] * 25


async def test_a_connection_that_says_nothing_is_given_up(database: str, tmp_path: Path):
    async with (
        by_proxy(database) as (address, proxy),
        process(address, tmp_path, "here") as store,
    ):
        before = await connections_of(database, "here")
        proxy.is_mute = True
        async with asyncio.timeout(40):
            while await connections_of(database, "here") >= before:
                await asyncio.sleep(0.05)
        proxy.is_mute = False
        await back(database, "here", set())

        assert await store.is_our_turn()


async def test_a_start_of_which_nobody_knows_is_an_orphan_though_its_process_lives(
    database: str, tmp_path: Path
):
    async with process(database, tmp_path, "here") as store:
        shelf = await Shelf.filled(store)
        known, lost = shelf.started(), shelf.started()
        for fact in (known, lost):
            await store.commits.commit(shelf.opening(fact, owner="here"))
        before = await store.events.orphans("here", 10)

        # As when the server goes away after it was told to commit and before it has answered.
        commits: Any = store.commits
        commits.unconfirmed.add(
            [shelf.opening(lost, owner="here"), shelf.opening(shelf.started(), owner="here")]
        )
        found = await store.events.orphans("here", 10)

        assert before == []
        assert [orphan.row.event_id for orphan in found] == [lost.event_id]
        assert store.is_sweep_due.is_set()
