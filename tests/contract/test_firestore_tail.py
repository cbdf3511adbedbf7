"""The tail on Firestore: commits that took long after their stamp was taken, imports, facts of an older layout; its cost."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.tail import Position
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import SERVER_TIME, Instant, Made, Query, StoredDocument, Write
from casekeeper.storage.firestore.tail import FirestoreTail
from casekeeper.storage.firestore.timestamps import AHEAD_US, is_late, stamp_again
from tests.contract.conftest import Where, made
from tests.contract.shelf import Shelf
from tests.contract.test_firestore_costs import Cost, counted
from tests.contract.walking import Place, firestore, places, present, settled, walked, written

pytestmark = pytest.mark.timeout(120)

SECOND_US = 1_000_000


@pytest.fixture
async def where(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Where]:
    """An empty store."""
    async with made(request, "firestore", tmp_path) as empty:
        yield empty


@pytest.fixture
async def documents(where: Where) -> AsyncGenerator[Firestore]:
    """Its documents."""
    async with firestore(where.address) as store:
        yield store


async def newest(documents: Firestore, shelf: Shelf, session_id: str) -> StoredDocument:
    """A session's newest fact."""
    seq = (await shelf.facts(session_id))[-1].seq
    found = await documents.one(at.event(shelf.casefile_id, session_id, seq))
    assert found is not None
    return found


async def plant(
    documents: Firestore, shelf: Shelf, session_id: str, ago_us: int, count: int = 1
) -> list[Place]:
    """Facts of one commit that takes so long: their stamp was taken that long ago."""
    last = await newest(documents, shelf, session_id)
    stamp = Instant(to_us(await documents.now()) - ago_us)
    seqs = [last.fields["seq"] + 1 + number for number in range(count)]
    rows = [{**last.fields, "seq": seq, "committed_at": stamp} for seq in seqs]
    paths = [at.event(shelf.casefile_id, session_id, seq) for seq in seqs]
    await documents.commit([Write(path, None, row) for path, row in zip(paths, rows, strict=True)])
    return [(session_id, seq) for seq in seqs]


async def as_written_before(documents: Firestore, shelf: Shelf, session_ids: list[str]) -> None:
    """Take the stamps away from all facts of these sessions."""
    for session_id in session_ids:
        for fact in await shelf.facts(session_id):
            path = at.event(shelf.casefile_id, session_id, fact.seq)
            found = await documents.one(path)
            assert found is not None
            row = {name: given for name, given in found.fields.items() if name != "committed_at"}
            await documents.commit([Write(path, found.version, row)])


async def test_a_commit_that_took_long_is_read_where_it_was_put_right(where: Where, documents: Firestore):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        other = (await shelf.session()).session_id
        start = await present(store.tail, shelf.casefile_id)
        late = await plant(documents, shelf, shelf.session_id, AHEAD_US + SECOND_US, 3)
        between = await written(shelf, other, 2)
        # It must not be read at its old place by some, and be passed there by others.
        assert await places(store.tail, shelf.casefile_id, start) == between
        kept = (await walked(store.tail, shelf.casefile_id, start))[1]
    async with where.open() as store:
        shelf = Shelf(store, shelf.casefile_id, shelf.session_id, shelf.pseudonyms)
        behind = await written(shelf, shelf.session_id, 2)

        assert await places(store.tail, shelf.casefile_id, kept, 2) == [*late, *behind]
        assert await places(store.tail, shelf.casefile_id, start) == [*between, *late, *behind]


class Meddled(Firestore):
    """Documents where something happens behind the first pages that are read."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []

    async def query_at(self, wanted: Query) -> tuple[list[StoredDocument], int]:
        page = await super().query_at(wanted)
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        return page


async def test_what_is_committed_between_two_pages_is_not_passed(where: Where, documents: Firestore):
    async with where.open() as store, firestore(where.address, Meddled) as meddled:
        shelf = await Shelf.filled(store)
        other = (await shelf.session()).session_id
        events: Any = store.events
        tail = FirestoreTail(meddled, events, has_unstamped=False)
        await written(shelf, other, 12)
        _, kept = await walked(tail, shelf.casefile_id)
        seen: list[Place] = []

        async def commit() -> None:
            # One begins early and is quick enough, but behind the page that it belongs to; one comes after it.
            seen.extend(await plant(documents, shelf, shelf.session_id, SECOND_US // 2))
            seen.extend(await written(shelf, other))
            await settled(tail)

        meddled.meanwhile.append(commit)
        found, position = await tail.read(shelf.casefile_id, kept, 2)

        later = await places(tail, shelf.casefile_id, position)
        assert [*((one.fact.session_id, one.fact.seq) for one in found), *later] == seen


async def test_whoever_sees_that_his_commit_took_long_puts_it_right(where: Where, documents: Firestore):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        start = await present(store.tail, shelf.casefile_id)
        written_ = await written(shelf, shelf.session_id, 2)
        facts = [await newest(documents, shelf, shelf.session_id)]
        _, kept = await walked(store.tail, shelf.casefile_id, start)

        writes = [Write(one.path, None, {"committed_at": SERVER_TIME}) for one in facts]
        await stamp_again(documents, Made(facts[0].version, AHEAD_US + SECOND_US), writes)

        # Here it had been read at its first place as well, where it was timely.
        assert await places(store.tail, shelf.casefile_id, kept) == written_[-1:]
        assert await places(store.tail, shelf.casefile_id, start) == written_


async def test_what_its_writer_could_not_put_right_a_reader_does(where: Where, documents: Firestore):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        start = await present(store.tail, shelf.casefile_id)
        late = await plant(documents, shelf, shelf.session_id, AHEAD_US + SECOND_US, 2)
        events: Any = store.events
        patient = FirestoreTail(documents, events, has_unstamped=False)
        hasty = FirestoreTail(documents, events, has_unstamped=False, left_us=0)
        # Whoever begins in front of it meets it; from then on everybody has it.
        early = Position(start.epoch, f"{int(start.place.split('~')[0]) - 10 * SECOND_US}~~0")

        assert not set(late) & set(await places(patient, shelf.casefile_id, early))
        assert is_late(await newest(documents, shelf, shelf.session_id))
        _, kept = await walked(hasty, shelf.casefile_id, early)

        for tail in (hasty, patient, store.tail):
            assert await places(tail, shelf.casefile_id, kept) == late
            assert (await places(tail, shelf.casefile_id))[-2:] == late


async def test_what_was_imported_is_ordered_by_its_stamps(where: Where, documents: Firestore):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        other = (await shelf.session()).session_id
        # An import makes all documents anew, in an order of its own.
        hour_us = 3600 * SECOND_US
        second = await plant(documents, shelf, other, hour_us, 2)
        first = await plant(documents, shelf, shelf.session_id, 2 * hour_us, 2)
        new = await written(shelf, other)

        everything = await places(store.tail, shelf.casefile_id, None, 3)

        assert everything[:4] == [*first, *second]
        assert everything[-1:] == new
        assert len(set(everything)) == len(everything) == 7


async def test_facts_of_an_older_layout_come_first_session_by_session(where: Where, documents: Firestore):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        sessions = sorted([shelf.session_id, (await shelf.session()).session_id])
        old = [
            one for session_id in sessions for one in ((session_id, 1), *await written(shelf, session_id, 3))
        ]
        await as_written_before(documents, shelf, sessions)
        layout = await documents.one("store/layout")
        assert layout is not None
        await documents.commit([Write("store/layout", layout.version, {"version": 1})])
    for _ in range(2):
        async with where.open() as store:
            shelf = Shelf(store, shelf.casefile_id, shelf.session_id, shelf.pseudonyms)
            end = await present(store.tail, shelf.casefile_id)
            made = await written(shelf, sessions[0])
            made += [(one.session_id, 1) for one in [await shelf.session()]]
            found, _ = await walked(store.tail, shelf.casefile_id)
            everything = [(one.fact.session_id, one.fact.seq) for one in found]

            assert everything[:8] == old
            assert everything[-2:] == made == await places(store.tail, shelf.casefile_id, end)
            for number, one in enumerate(found, 1):
                rest = everything[number:]
                assert await places(store.tail, shelf.casefile_id, one.position, 3) == rest
    layout = await documents.one("store/layout")
    assert layout is not None
    assert layout.fields == {"version": 2, "began_with": 1}


async def test_reading_at_the_end_costs_one_call_however_long_the_history(where: Where):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        costs: list[Cost] = []
        for more in (10, 400):
            await shelf.commit(Commit([shelf.fact(Kind.DENIED) for _ in range(more)]))
            _, end = await walked(store.tail, shelf.casefile_id)
            # What was committed in the last two seconds is looked at again, for commits that were slower.
            later = Position(end.epoch, f"{int(end.place.split('~')[0]) + AHEAD_US}~~0")
            with counted() as cost:
                assert await places(store.tail, shelf.casefile_id, later) == []
            costs.append(cost)

    assert costs == [Cost(calls=1, documents=0)] * 2
