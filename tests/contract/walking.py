"""Walks along the tail, and what they meet."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.tail import Position, Tail, TailFact
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore, open_channels
from casekeeper.storage.firestore.messages import Write
from casekeeper.storage.firestore.tail import FirestoreTail
from casekeeper.storage.firestore.timestamps import SETTLED_US
from tests.contract.conftest import Where
from tests.contract.shelf import Shelf

# It comes without types.
_driver: Any = asyncpg

F = TypeVar("F", bound=Firestore)
Place = tuple[str, int]
"""A fact: its session and its seq."""


async def walked(
    tail: Tail, casefile_id: str, after: Position | None = None, limit: int = 100
) -> tuple[list[TailFact], Position]:
    """All facts behind a position, page by page, and where they end; none of them is held back any more."""
    await settled(tail)
    found: list[TailFact] = []
    while True:
        page, position = await tail.read(casefile_id, after, limit)
        found += page
        if len(page) < limit:
            return found, position
        assert position == page[-1].position
        after = position


async def settled(tail: Tail) -> None:
    """Wait as long as Firestore holds facts back."""
    if isinstance(tail, FirestoreTail):
        await asyncio.sleep(SETTLED_US / 1e6 + 0.05)


async def present(tail: Tail, casefile_id: str) -> Position:
    """The end of the tail, behind everything that was committed before."""
    await settled(tail)
    return await tail.end(casefile_id)


async def places(
    tail: Tail, casefile_id: str, after: Position | None = None, limit: int = 100
) -> list[Place]:
    """The facts behind a position."""
    found, _ = await walked(tail, casefile_id, after, limit)
    return [(one.fact.session_id, one.fact.seq) for one in found]


async def written(shelf: Shelf, session_id: str, count: int = 1) -> list[Place]:
    """Facts that are committed one after the other."""
    made: list[Place] = []
    for _ in range(count):
        [sealed] = await shelf.commit(Commit((shelf.fact(Kind.DENIED, session_id),)))
        made.append((session_id, sealed.seq))
    return made


async def begin_epoch(where: Where, epoch: str) -> None:
    """What is done after a restore (docs/backup.md), to a store that nobody has open."""
    if where.kind == "sqlite":
        with closing(sqlite3.connect(where.directory / "casekeeper.db")) as connection, connection:
            connection.execute("UPDATE acl_head SET epoch = ?", (epoch,))
    elif where.kind == "postgresql":
        connection = await _driver.connect(where.address)
        await connection.execute("UPDATE acl_head SET epoch = $1", epoch)
        await connection.close()
    else:
        async with firestore(where.address) as store:
            head = await store.one(at.FEED_HEAD)
            assert head is not None
            await store.commit([Write(at.FEED_HEAD, head.version, {**head.fields, "epoch": epoch})])


@asynccontextmanager
async def firestore(address: str, kind: type[F] = Firestore) -> AsyncGenerator[F]:
    """Documents as they are."""
    parts = urlsplit(address)
    async with open_channels(1, parts.query.removeprefix("emulator=")) as channels:
        yield kind(channels, f"projects/{parts.netloc}/databases/(default)", token="owner")
