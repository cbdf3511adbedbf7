"""The tail on PostgreSQL: commits that take long, other databases of the server, servers that count anew; and its cost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from casekeeper.errors import PositionOfAnotherEpoch
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.storage.opening import open_storage
from casekeeper.storage.sql.migrating import upgrade
from casekeeper.storage.sql.tail import SqlTail
from tests.contract.explained import Explained
from tests.contract.shelf import NOW, Shelf
from tests.contract.walking import places, walked, written
from tests.fakes.postgres import Postgres, selected

pytestmark = pytest.mark.timeout(120)

_driver: Any = asyncpg
_COLUMNS = "session_id, casefile_id, event_id, kind, actor, at_us, header, commitment, hash"
# As a process of an older version writes it, which names no `rid`.
_NEXT = f"""INSERT INTO events (seq, {_COLUMNS}) SELECT seq + 1, {_COLUMNS} FROM events
WHERE session_id = $1 ORDER BY seq DESC LIMIT 1"""
_HEAD = "UPDATE sessions SET head_seq = head_seq + 1 WHERE session_id = $1"


@asynccontextmanager
async def a_transaction(url: str, session_id: str) -> AsyncGenerator[Any]:
    """One that has written a fact of a session and is not committed until its user says so."""
    connection = await _driver.connect(url)
    await connection.execute("BEGIN")
    await connection.execute(_NEXT, session_id)
    await connection.execute(_HEAD, session_id)
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_commit_that_takes_long_is_not_skipped(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        slow, quick = (await shelf.session()).session_id, (await shelf.session()).session_id
        start = await store.tail.end(shelf.casefile_id)
        async with a_transaction(database, slow) as late:
            made = await written(shelf, quick, 3)
            while_held, position = await walked(store.tail, shelf.casefile_id, start)
            at_end = await store.tail.end(shelf.casefile_id)
            news = await store.tail.casefiles_with_news(start)
            await late.execute("COMMIT")
        made += await written(shelf, slow)

        assert while_held == []
        expected = [(slow, 2), *made]
        for after in (start, position, at_end):
            assert await places(store.tail, shelf.casefile_id, after, 2) == expected
        later = await store.tail.casefiles_with_news(news.position)
        assert (news.casefile_ids, later.casefile_ids) == (set(), {shelf.casefile_id})


async def test_what_is_rolled_back_holds_nothing_back(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        other = (await shelf.session()).session_id
        start = await store.tail.end(shelf.casefile_id)
        async with a_transaction(database, shelf.session_id):
            made = await written(shelf, other, 2)
            assert await places(store.tail, shelf.casefile_id, start) == []
        async with asyncio.timeout(20):
            while not (found := await places(store.tail, shelf.casefile_id, start)):
                await asyncio.sleep(0.01)

        assert found == made


async def test_what_another_database_of_the_server_does_is_not_waited_for(
    postgres: Postgres, database: str, tmp_path: Path
):
    elsewhere = await postgres.migrated()
    async with (
        open_storage(database, tmp_path / "here", lambda _: None) as store,
        open_storage(elsewhere, tmp_path / "there", lambda _: None) as there,
    ):
        shelf, foreign = await Shelf.filled(store), await Shelf.filled(there)
        start = await store.tail.end(shelf.casefile_id)
        async with a_transaction(elsewhere, foreign.session_id):
            # Facts of the shelf are from long ago; what was written just now waits for two seconds.
            made = await written(shelf, shelf.session_id, 3)
            found = await places(store.tail, shelf.casefile_id, start)
            news = await store.tail.casefiles_with_news(start)
            assert await places(there.tail, foreign.casefile_id, None) == [(foreign.session_id, 1)]

        assert found == made
        assert news.casefile_ids == {shelf.casefile_id}
    await postgres.drop(elsewhere)


async def test_on_a_server_that_counts_anew_facts_come_behind_those_that_were_brought(
    database: str, tmp_path: Path
):
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        start = await store.tail.end(shelf.casefile_id)
    # As after `pg_restore`: these transactions are of the future here.
    connection = await _driver.connect(database)
    brought = _NEXT.replace("(seq,", "(rid, seq,").replace("SELECT", "SELECT (1::bigint << 52) + 7,")
    await connection.execute(brought, shelf.session_id)
    await connection.execute(_HEAD, shelf.session_id)
    await connection.close()

    async with open_storage(database, tmp_path, lambda _: None) as store:
        with pytest.raises(PositionOfAnotherEpoch):
            await store.tail.read(shelf.casefile_id, start, 1)
        before = await places(store.tail, shelf.casefile_id)
        end = await store.tail.end(shelf.casefile_id)
        new = Shelf(store, shelf.casefile_id, shelf.session_id, shelf.pseudonyms)
        made = await written(new, shelf.session_id, 2)
        behind = await places(store.tail, shelf.casefile_id, end)
    async with open_storage(database, tmp_path, lambda _: None) as store:
        after = await places(store.tail, shelf.casefile_id, end)

    assert before == [(shelf.session_id, 1), (shelf.session_id, 2)]
    assert behind == after == made == [(shelf.session_id, 3), (shelf.session_id, 4)]


async def test_facts_from_before_there_was_a_tail_are_in_it(postgres: Postgres, tmp_path: Path):
    url = await postgres.make()
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0006")
    await engine.dispose()
    connection = await _driver.connect(url)
    for name in "ab":
        await connection.execute(
            "INSERT INTO sessions VALUES ($1, 'cf', 'u', 'interactive', 'private', NULL, 0, '{}', 1, 1, NULL, 3, '')",
            name,
        )
    for seq, name in enumerate("ababab"):
        row = (name, seq // 2 + 1, "cf", f"evt_{seq}", "denied", "usr", 1, b"{}", b"", b"")
        await connection.execute(
            f"INSERT INTO events (session_id, seq, {_COLUMNS.partition(', ')[2]}) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            *row,
        )
    await connection.close()

    async with open_storage(url, tmp_path, lambda _: None) as store:
        old, position = await walked(store.tail, "cf", None, 4)
        shelf = Shelf(store, "cf", "a", {"owner@example.com": "usr"})
        made = await written(shelf, "b")

        told = [(one.fact.session_id, one.fact.seq, one.event_id) for one in old]
        assert told == [(name, seq // 2 + 1, f"evt_{seq}") for seq, name in enumerate("ababab")]
        assert await places(store.tail, "cf", old[3].position) == [("a", 3), ("b", 3), *made]
        assert await places(store.tail, "cf", position) == made
    await postgres.drop(url)


async def test_a_page_costs_the_same_however_long_the_history(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        start = await store.tail.end(shelf.casefile_id)
        costs: list[list[tuple[int, int]]] = []
        reads = Explained(database)
        tail = SqlTail(reads)
        for more in (20, 1_000):
            facts = [shelf.fact(Kind.DENIED) for _ in range(more)]
            await asyncio.gather(*(shelf.commit(Commit((fact,))) for fact in facts))
            _, end = await walked(store.tail, shelf.casefile_id, start, 500)
            made = await written(shelf, shelf.session_id, 5)
            # The names of actors are known from here on.
            await tail.read(shelf.casefile_id, end, 1)
            reads.taken()
            found = [await tail.read(shelf.casefile_id, place, 5) for place in (start, end)]
            assert [len(page) for page, _ in found] == [5, 5]
            assert [one.fact.seq for one in found[1][0]] == [seq for _, seq in made]
            await tail.casefiles_with_news(end)
            costs.append([reads.taken()])

    assert costs[0] == costs[1]
    assert costs[0][0][0] == 3


async def test_the_number_of_its_transaction_is_in_a_facts_place(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        both = [shelf.fact(Kind.DENIED, started_at=NOW) for _ in range(3)]
        await shelf.commit(Commit(both))

    rows = await selected(
        database, "SELECT rid >> 20, rid & 1048575, xmin::text::bigint FROM events ORDER BY rid"
    )
    assert [transaction for transaction, _, _ in rows] == [xmin for *_, xmin in rows]
    assert [n for _, n, _ in rows[-3:]] == [1, 2, 3]
