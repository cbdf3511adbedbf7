"""Of several processes on one store one sweeps, and another when it is gone."""

import asyncio
import shutil
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, closing, suppress
from pathlib import Path

import pytest

from casekeeper.casefiles.casefile import DeleteCasefile, EraseContents
from casekeeper.errors import StoreUnavailable
from casekeeper.journal.commits import Commit
from casekeeper.storage.opening import open_storage
from casekeeper.storage.store import Storage
from tests.contract.shelf import LATER, Shelf
from tests.fakes.firestore import Emulator
from tests.fakes.postgres import Postgres, running_postgres
from tests.fakes.proxy import proxy_to

pytestmark = pytest.mark.timeout(120)

# A process that takes its turn, says so, and goes on.
_OTHER = """
import asyncio, sys
from pathlib import Path
from casekeeper.storage.opening import open_storage

async def main():
    address, directory = sys.argv[1:]
    async with open_storage(address, Path(directory), lambda _: None, owner="other") as store:
        print(await store.is_our_turn(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(params=["postgresql", "firestore"])
async def address(request: pytest.FixtureRequest) -> AsyncGenerator[str]:
    """A store that several processes may share."""
    if request.param == "firestore":
        emulator: Emulator = request.getfixturevalue("emulator")
        yield emulator.address()
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = await server.migrated()
    yield url
    await server.drop(url)


def process(address: str, tmp_path: Path, migrated: Path, name: str) -> AbstractAsyncContextManager[Storage]:
    """The store as one process has it."""
    directory = tmp_path / name
    directory.mkdir()
    shutil.copy(migrated / "casekeeper.db", directory / "search.db")
    return open_storage(address, directory, lambda _: None, owner=name)


async def test_it_is_always_the_turn_of_the_only_process_there_is(tmp_path: Path):
    async with open_storage("", tmp_path, lambda _: None) as store:
        assert await store.is_our_turn()


async def test_one_of_two_sweeps_until_it_ends(address: str, tmp_path: Path, migrated: Path):
    async with process(address, tmp_path, migrated, "two") as two:
        async with process(address, tmp_path, migrated, "one") as one:
            turns = [await store.is_our_turn() for store in (one, two, one, two)]
        await _becomes_our_turn(two)

    assert turns == [True, False, True, False]


async def test_of_many_that_ask_at_once_one_sweeps(address: str, tmp_path: Path, migrated: Path):
    async with (
        process(address, tmp_path, migrated, "one") as one,
        process(address, tmp_path, migrated, "two") as two,
        process(address, tmp_path, migrated, "three") as three,
    ):
        turns = await asyncio.gather(*(store.is_our_turn() for store in (one, two, three)))

    assert sorted(turns) == [False, False, True]


async def test_another_takes_the_place_of_one_that_was_killed(address: str, tmp_path: Path, migrated: Path):
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER, address, str(tmp_path / "other"), stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    async with process(address, tmp_path, migrated, "here") as here:
        assert await other.stdout.readline() == b"True\n"
        before = await here.is_our_turn()
        other.kill()
        await other.wait()
        await _becomes_our_turn(here)

    assert before is False


async def test_while_postgresql_is_away_it_is_nobodys_turn(tmp_path: Path):
    with running_postgres() as server:
        url = await server.migrated()
        async with open_storage(url, tmp_path, lambda _: None, owner="one") as store:
            assert await store.is_our_turn()
            server.kill()
            with pytest.raises(StoreUnavailable):
                await store.is_our_turn()
            server.start()
            await _becomes_our_turn(store)


async def test_while_firestore_is_away_it_is_nobodys_turn(emulator: Emulator, tmp_path: Path, migrated: Path):
    async with proxy_to(emulator.host) as proxy:
        address = emulator.address().replace(emulator.host, proxy.host)
        async with process(address, tmp_path, migrated, "one") as store:
            await proxy.cut()
            with pytest.raises(StoreUnavailable):
                await store.is_our_turn()
            await proxy.mend()
            await _becomes_our_turn(store)


async def _becomes_our_turn(store: Storage) -> None:
    """Returns when it does; a store takes a moment to notice that somebody is gone, or that it is back."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                if await store.is_our_turn():
                    return
            await asyncio.sleep(0.05)


async def test_each_process_clears_its_own_search_index_of_what_another_erased(
    emulator: Emulator, tmp_path: Path, migrated: Path
):
    address = emulator.address()
    async with (
        process(address, tmp_path, migrated, "one") as one,
        process(address, tmp_path, migrated, "two") as two,
    ):
        shelf = await Shelf.filled(one)
        await shelf.commit(Commit(records=(shelf.document("needle"),)))
        # The other takes it into its index when it is asked.
        assert (await two.documents.counts(shelf.casefile_id)).documents == 1
        await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
        await two.tidy()
        kept = _words_in(tmp_path / "two")
        await shelf.commit(Commit(records=(EraseContents(shelf.casefile_id),)))

        await two.tidy()

        assert (kept, _words_in(tmp_path / "two")) == (1, 0)


def _words_in(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "search.db")) as connection:
        return connection.execute("SELECT count(*) FROM documents").fetchone()[0]
