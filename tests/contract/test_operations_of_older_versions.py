"""Rows of open operations that the version before wrote: it knew no attempts, no waiting, no taint."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest

from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact, Kind, Sealed
from casekeeper.storage.opening import open_storage
from tests.contract.conftest import STORES
from tests.contract.shelf import OWNER, Shelf
from tests.contract.waiting import end, opened_one, park, row_of, take_over
from tests.fakes.firestore import Emulator
from tests.fakes.postgres import Postgres, shared_postgres

pytestmark = pytest.mark.timeout(60)

_driver: Any = asyncpg

Write = Callable[[dict[str, Any]], Awaitable[None]]
"""Writes a row past the store."""


def insertion(row: dict[str, Any], parameter: Callable[[int], str]) -> str:
    places = ", ".join(parameter(number) for number in range(1, len(row) + 1))
    return f"INSERT INTO open_operations ({', '.join(row)}) VALUES ({places})"


def into_sqlite(path: Path) -> Write:
    async def write(row: dict[str, Any]) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(insertion({**row, "heartbeat_us": 0}, lambda n: f":{n}"), [*row.values(), 0])

    return write


def into_postgres(url: str) -> Write:
    async def write(row: dict[str, Any]) -> None:
        connection = await _driver.connect(url)
        text = insertion({**row, "heartbeat_us": 0}, lambda n: f"${n}")
        await connection.execute(text, *row.values(), 0)
        await connection.close()

    return write


def into_firestore(address: str) -> Write:
    parts = urlsplit(address)
    root = f"http://{parts.query.removeprefix('emulator=')}/v1/projects/{parts.netloc}/databases/(default)"

    def typed(value: Any) -> dict[str, Any]:
        if value is None:
            return {"nullValue": None}
        return {"integerValue": str(value)} if isinstance(value, int) else {"stringValue": value}

    async def write(row: dict[str, Any]) -> None:
        fields = {name: typed(value) for name, value in {**row, "claim": None}.items()}
        async with httpx2.AsyncClient() as http:
            url = f"{root}/documents/open_operations/{row['event_id']}"
            (await http.patch(url, json={"fields": fields})).raise_for_status()

    return write


@pytest.fixture(params=STORES)
async def old(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[tuple[Shelf, Fact, Sealed]]:
    """A store with an operation that the version before has started."""
    server: Postgres | None = None
    address, data = "", tmp_path / "data"
    if request.param == "postgresql":
        server = shared_postgres()
        address = await server.migrated()
        write = into_postgres(address)
    elif request.param == "firestore":
        emulator: Emulator = request.getfixturevalue("emulator")
        address = emulator.address()
        write = into_firestore(address)
    else:
        write = into_sqlite(data / "casekeeper.db")
    async with open_storage(address, data, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        fact = shelf.started()
        [sealed] = await shelf.commit(Commit((fact,)))
        await write(
            {
                "event_id": fact.event_id,
                "casefile_id": fact.casefile_id,
                "session_id": fact.session_id,
                "parent_event_id": None,
                "root_event_id": fact.event_id,
                "user_id": OWNER,
                "actor": fact.actor,
                "operation_type": "tool",
                "operation_name": "noop",
                "request_id": None,
                "owner": "older",
                "state": "running",
                "started_us": to_us(fact.started_at),
                "started_seq": sealed.seq,
                "inputs_commit": fact.payload.commit.hex(),
                "stop": None,
            }
        )
        yield shelf, fact, sealed
    if server is not None:
        await server.drop(address)


Old = tuple[Shelf, Fact, Sealed]


async def test_it_runs_by_its_first_attempt_and_cannot_be_taken_up_again(old: Old):
    shelf, fact, _ = old

    row = await row_of(shelf, fact)

    assert (row.owner, row.state, row.attempt, row.wake_at) == ("older", "running", 1, None)
    assert (row.is_tainted, row.is_approved, row.held) == (False, False, None)
    assert await shelf.storage.events.due(10) == []


async def test_it_is_an_orphan_and_can_be_closed(old: Old):
    shelf, fact, sealed = old
    async with asyncio.timeout(30):
        # For 15 s after PostgreSQL has started, whoever has lost it may still come back.
        while not (orphans := await shelf.storage.events.orphans("me", 10)):
            await asyncio.sleep(0.1)
    [orphan] = orphans
    ending = shelf.ending(fact, sealed.seq, Kind.INTERRUPTED)

    await shelf.commit(Commit(ending.facts, (orphan.row.ownership,), ending.records))

    assert await shelf.storage.events.opened([fact.event_id]) == []
    assert (await shelf.check()).findings == ()


async def test_it_can_be_parked_and_taken_up_like_any_other(old: Old):
    shelf, fact, sealed = old

    await shelf.commit(park(fact, "older", until=5))
    await shelf.commit(take_over(fact))

    assert (await opened_one(shelf, fact)).row.attempt == 2
    await shelf.commit(end(shelf, fact, attempt=2, seq=sealed.seq))
