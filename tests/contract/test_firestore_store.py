"""What Firestore promises to several processes at once, when it is away, and about what outgrows a document."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import FenceBroken, RemoveGrant
from casekeeper.errors import StoreUnavailable
from casekeeper.journal.commits import Commit, Superseded
from casekeeper.journal.events import Kind
from casekeeper.journal.requests import Claim
from casekeeper.storage.opening import migrate_shared, open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.store import Storage
from tests.contract.shelf import GUEST, NOW, Shelf
from tests.fakes.firestore import Emulator, documents_in
from tests.fakes.proxy import Proxy, proxy_to

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def address(emulator: Emulator) -> str:
    """A store that nobody else has."""
    return emulator.address()


@asynccontextmanager
async def process(address: str, tmp_path: Path, migrated: Path, name: str) -> AsyncGenerator[Storage]:
    """The store as one process has it, with a data directory of its own."""
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    shutil.copy(migrated / "casekeeper.db", directory / "search.db")
    async with open_storage(address, directory, lambda _: None, limits=StoreLimits(channels=2)) as opened:
        yield opened


@pytest.fixture
async def shelves(address: str, tmp_path: Path, migrated: Path) -> AsyncGenerator[tuple[Shelf, Shelf]]:
    """The same store in two processes."""
    async with (
        process(address, tmp_path, migrated, "one") as one,
        process(address, tmp_path, migrated, "two") as two,
    ):
        first = await Shelf.filled(one)
        yield first, Shelf(two, first.casefile_id, first.session_id, first.pseudonyms)


# Two processes


async def test_two_processes_write_one_gapless_chain(shelves: tuple[Shelf, Shelf]):
    async def produce(shelf: Shelf) -> None:
        for turn in range(25):
            await shelf.commit(Commit((shelf.fact(Kind.DENIED, body=turn),)))

    await asyncio.gather(*(produce(shelf) for shelf in shelves for _ in range(4)))

    assert [fact.seq for fact in await shelves[0].facts()] == list(range(1, 202))
    assert (await shelves[1].check()).exit_code == 0


async def test_of_duplicates_in_two_processes_one_goes_through(shelves: tuple[Shelf, Shelf]):
    async def ask(shelf: Shelf, made: str) -> bool:
        claim = Claim("k", "f", made, NOW, None)
        try:
            await shelf.commit(Commit((shelf.fact(Kind.STARTED),), (claim,), (claim,)))
        except Superseded:
            return False
        return True

    asked = [ask(shelf, f"evt_{n}") for n in range(10) for shelf in shelves]

    assert sum(await asyncio.gather(*asked)) == 1


async def test_a_fence_sees_a_revoke_of_the_other_process(shelves: tuple[Shelf, Shelf]):
    one, other = shelves
    await one.grant(GUEST, Role.EDITOR)
    fence = await one.fence(GUEST)
    await one.commit(Commit((one.fact(Kind.DENIED),), (fence,)))
    revoke = (RemoveGrant(one.casefile_id, GUEST), other.change(GUEST, one.casefile_id))
    await other.commit(Commit(records=revoke))

    with pytest.raises(FenceBroken):
        await one.commit(Commit((one.fact(Kind.DENIED),), (fence,)))


async def test_no_start_is_written_behind_a_revoke_whoever_writes_it(shelves: tuple[Shelf, Shelf]):
    one, other = shelves
    for _ in range(10):
        await one.grant(GUEST, Role.EDITOR)
        fence = await one.fence(GUEST)
        before = len(await one.facts())
        revoked = asyncio.Event()
        late: list[bool] = []

        async def start(
            fence: object = fence, revoked: asyncio.Event = revoked, late: list[bool] = late
        ) -> None:
            while True:
                was_revoked = revoked.is_set()
                try:
                    await one.commit(Commit((one.fact(Kind.DENIED),), (fence,)))  # pyright: ignore[reportArgumentType]
                except FenceBroken:
                    return
                late.append(was_revoked)

        starting = asyncio.ensure_future(start())
        revoke = (RemoveGrant(one.casefile_id, GUEST), other.change(GUEST, one.casefile_id))
        await other.commit(Commit(records=revoke))
        revoked.set()
        await starting

        assert True not in late
        assert len(await one.facts()) == before + len(late)


async def test_operations_of_a_process_that_lives_are_no_orphans(shelves: tuple[Shelf, Shelf]):
    one, other = shelves
    assert await one.storage.events.orphans("first", 10) == []
    fact = one.started()
    await one.commit(one.opening(fact, owner="first"))
    lost = one.started()
    await one.commit(one.opening(lost, owner="gone"))

    orphans = await other.storage.events.orphans("second", 10)

    assert [orphan.row.event_id for orphan in orphans] == [lost.event_id]


async def test_what_another_process_filed_is_found(shelves: tuple[Shelf, Shelf]):
    one, other = shelves
    for shelf in (one, other, one):
        await shelf.commit(Commit(records=(shelf.document("needle"),)))

        for reader in shelves:
            counted = await reader.storage.documents.counts(one.casefile_id)
            stored = await reader.storage.documents.documents(one.casefile_id, None, None, 10)
            assert counted.documents == len(stored)


# Large things


async def test_a_body_that_cannot_be_packed_comes_back_as_it_went(shelves: tuple[Shelf, Shelf]):
    noise = os.urandom(2_500_000).hex()
    await shelves[0].commit(Commit((shelves[0].fact(Kind.STARTED, body=noise),)))

    [_, fact] = await shelves[1].facts()

    assert fact.body is not None
    assert noise.encode() in fact.body


# When Firestore is away


@pytest.fixture
async def cuttable(
    emulator: Emulator, tmp_path: Path, migrated: Path
) -> AsyncGenerator[tuple[Shelf, Proxy, str]]:
    """A store behind a way that can be cut."""
    async with proxy_to(emulator.host) as proxy:
        address = emulator.address().replace(emulator.host, proxy.host)
        async with process(address, tmp_path, migrated, "data") as storage:
            yield await Shelf.filled(storage), proxy, address.replace(proxy.host, emulator.host)


async def test_a_store_that_is_away_is_unavailable_and_then_back(cuttable: tuple[Shelf, Proxy, str]):
    shelf, proxy, _ = cuttable
    await proxy.cut()

    with pytest.raises(StoreUnavailable):
        await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))
    with pytest.raises(StoreUnavailable):
        await shelf.facts()

    await proxy.mend()
    async with asyncio.timeout(10):
        while True:
            try:
                await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))
                break
            except StoreUnavailable:
                continue
    assert (await shelf.check()).exit_code == 0


async def test_cuts_under_load_lose_and_double_nothing(cuttable: tuple[Shelf, Proxy, str]):
    shelf, proxy, _ = cuttable
    is_over = False
    told: list[int] = []

    async def produce() -> None:
        while not is_over:
            try:
                [sealed] = await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))
                told.append(sealed.seq)
            except StoreUnavailable:
                await asyncio.sleep(0.01)

    producers = [asyncio.ensure_future(produce()) for _ in range(8)]
    for _ in range(4):
        await asyncio.sleep(0.3)
        await proxy.cut()
        await asyncio.sleep(0.1)
        await proxy.mend()
        before = len(told)
        async with asyncio.timeout(10):
            while len(told) == before:
                await asyncio.sleep(0.01)
    is_over = True
    await asyncio.gather(*producers)

    stored = [fact.seq for fact in await shelf.facts()]
    assert stored == list(range(1, len(stored) + 1))
    assert len(told) == len(set(told))
    assert set(told) <= set(stored)
    assert (await shelf.check()).exit_code == 0


async def _until_written(address: str, facts: int) -> None:
    """Return when so many facts are there."""
    async with asyncio.timeout(10):
        while len(documents_in(address, "events", "event_id")) < facts:
            await asyncio.sleep(0.02)


async def test_a_commit_whose_answer_was_lost_is_written_once_and_answered(
    cuttable: tuple[Shelf, Proxy, str],
):
    shelf, proxy, past = cuttable
    # From here on a fact is written without reading anything first.
    await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))
    proxy.is_mute = True
    waiting = asyncio.ensure_future(shelf.commit(Commit((shelf.fact(Kind.DENIED),))))
    await _until_written(past, 3)
    await proxy.cut()
    proxy.is_mute = False
    await proxy.mend()

    [sealed] = await waiting

    assert [fact.seq for fact in await shelf.facts()] == [1, 2, sealed.seq]


async def test_there_is_nothing_to_migrate(emulator: Emulator, tmp_path: Path):
    address, directory = emulator.address(), tmp_path / "data"

    assert await migrate_shared(address, directory, StoreLimits()) is False
    async with open_storage(address, directory, lambda _: None) as store:
        assert (await store.accounts.head()).number == 0
