"""The least that appending facts can cost: the very rows of an append, by hand-made group commit on the bare driver.

Each append adds its fact and its payload to the store's own tables, with all their indexes, and moves its session's head,
all durably. What is left out is everything that makes a fact one: conditions, numbers taken under a lock, hashes, JSON.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import LargeBinary, Table, Text

from casekeeper.storage.sql.facts import EVENTS, PAYLOADS
from casekeeper.storage.sqlite.store import connect

_BATCH_MAX = 256
_HEAD = ("session_id", "head_seq", "head_hash", "last_us")

Row = dict[str, Any]


class Copies:
    """Makes rows like those of one fact, for sessions of the floor's own."""

    def __init__(self, event: Row, payload: Row, sessions: Sequence[str]) -> None:
        self._event = {name: value for name, value in event.items() if name != "rid"}
        self._payload = payload
        self._sessions = sessions
        self._seqs = [itertools.count(2) for _ in sessions]
        self._numbers = itertools.count(1)

    def make(self, producers: Sequence[int]) -> tuple[list[Row], list[Row], list[Row]]:
        """One fact for each producer, in its session: events, payloads, heads."""
        events: list[Row] = []
        payloads: list[Row] = []
        heads: list[Row] = []
        for producer in producers:
            session_id, seq, number = (
                self._sessions[producer],
                next(self._seqs[producer]),
                next(self._numbers),
            )
            hash_, at_us = number.to_bytes(32, "big"), self._event["at_us"] + number
            own = {"session_id": session_id, "seq": seq}
            fact = {"event_id": f"evt_{number:027x}", "at_us": at_us, "hash": hash_, "commitment": hash_}
            events.append({**self._event, **own, **fact})
            payloads.append({**self._payload, **own})
            heads.append(dict(zip(_HEAD, (session_id, seq, hash_, at_us), strict=True)))
        return events, payloads, heads


class SqliteFloor:
    """A writer thread and one transaction for everybody who waits."""

    def __init__(self, path: Path, copies: Copies) -> None:
        self._path = path
        self._copies = copies
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[int, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    async def add(self, producer: int) -> None:
        """Returns when the rows are on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((producer, future))
        await future

    def close(self) -> None:
        """Write what waits."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        connection = connect(self._path)
        adding = [_named_insert(table) for table in (EVENTS, PAYLOADS)]
        while (item := self._queue.get()) is not None:
            batch = [item]
            while not self._queue.empty() and len(batch) < _BATCH_MAX:
                waiting = self._queue.get()
                if waiting is None:
                    self._queue.put(None)
                    break
                batch.append(waiting)
            events, payloads, heads = self._copies.make([producer for producer, _ in batch])
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(adding[0], events)
            connection.executemany(adding[1], payloads)
            connection.executemany(
                "UPDATE sessions SET head_seq = :head_seq, head_hash = :head_hash, last_us = :last_us"
                " WHERE session_id = :session_id",
                heads,
            )
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch])
        connection.close()


class PostgresFloor:
    """Writers with a connection each, the producers shared out among them; a transaction for everybody who waits at one."""

    def __init__(self, connections: Sequence[Any], copies: Copies) -> None:
        self._copies = copies
        self._writers = [_Writer(connection, copies) for connection in connections]

    async def add(self, producer: int) -> None:
        """Returns when the rows are on disk."""
        await self._writers[producer % len(self._writers)].add(producer)


class _Writer:
    def __init__(self, connection: Any, copies: Copies) -> None:
        self._connection = connection
        self._copies = copies
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, producer: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((producer, future))
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        await future

    async def _write(self) -> None:
        await asyncio.sleep(0)
        while batch := self._waiting[:_BATCH_MAX]:
            del self._waiting[:_BATCH_MAX]
            events, payloads, heads = self._copies.make([producer for producer, _ in batch])
            async with self._connection.transaction():
                await self._connection.execute(*_unnested(EVENTS, events))
                await self._connection.execute(*_unnested(PAYLOADS, payloads))
                await self._connection.execute(
                    "UPDATE sessions SET head_seq = n.seq, head_hash = n.hash, last_us = n.at_us"
                    " FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[]) AS n (id, seq, hash, at_us)"
                    " WHERE session_id = n.id",
                    *([head[name] for head in heads] for name in _HEAD),
                )
            _resolve([future for _, future in batch])
            await asyncio.sleep(0)
        self._task = None


def _named_insert(table: Table) -> str:
    names = [column.name for column in table.c if column.name != "rid"]
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"


def _unnested(table: Table, rows: Sequence[Row]) -> tuple[Any, ...]:
    columns = [column for column in table.c if column.name != "rid"]
    names = ", ".join(column.name for column in columns)
    arrays = ", ".join(f"${place}::{_type(column)}[]" for place, column in enumerate(columns, 1))
    statement = f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"
    return statement, *([row[column.name] for row in rows] for column in columns)


def _type(column: Any) -> str:
    if isinstance(column.type, Text):
        return "text"
    return "bytea" if isinstance(column.type, LargeBinary) else "bigint"


def _resolve(futures: Sequence["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
