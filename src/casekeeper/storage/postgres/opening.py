"""Opens a PostgreSQL store: connections, schema, listener; and closes it again."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from casekeeper.acl_feed import Change
from casekeeper.errors import SchemaTooNew, SettingsInvalid, StoreUnavailable
from casekeeper.journal.events import Sealed
from casekeeper.storage.blobs.opening import open_blobs
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.postgres.presence import PostgresEvents, Presence
from casekeeper.storage.postgres.search import PostgresSearch
from casekeeper.storage.postgres.store import OUTAGES, PostgresStore, guarded
from casekeeper.storage.postgres.tail import keep_order
from casekeeper.storage.sql.blobs import SqlParts
from casekeeper.storage.sql.casefiles import SqlCasefiles
from casekeeper.storage.sql.documents import SqlDocuments
from casekeeper.storage.sql.identities import SqlIdentities
from casekeeper.storage.sql.migrating import NEWEST
from casekeeper.storage.sql.sessions import SqlSessions
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sql.tail import SqlTail
from casekeeper.storage.sql.things import SqlThings
from casekeeper.storage.store import Storage

# It comes without types.
_driver: Any = asyncpg
# The server is there; nothing but another address will help.
_MISTAKEN = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
)
# So that two processes that start at once do not both migrate.
_MIGRATION_LOCK = 7_205_339_281
# A machine that has vanished holds its locks until the server notices, for which it would take two hours by itself.
_OF_PRESENCE = {
    "application_name": "casekeeper presence",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


@asynccontextmanager
async def open_postgres(
    address: str,
    directory: Path,
    announce: Callable[[Sequence[Sealed]], None],
    push: Callable[[Sequence[Change]], None],
    limits: StoreLimits,
    owner: str,
    heard: Callable[[Sequence[Change]], None],
) -> AsyncGenerator[Storage]:
    """The store in a database, its tables made or migrated where needed; `owner` is this process.

    `push` is called with changes made here, `heard` with those that the server announces from any process.

    Raises:
        SchemaTooNew: It belongs to a newer version.
        StoreUnavailable: It does not answer, or lets nobody in.
    """
    options = _options(address, limits)
    await migrate_postgres(address, limits)
    with guarded("be reached"):
        pool: Any = await _driver.create_pool(
            **options,
            min_size=2,
            max_size=limits.connections,
            # All that is changed of a connection ends with its transaction; asyncpg would ask once more for every use.
            reset=_nothing,
            command_timeout=limits.statement.total_seconds(),
        )
        await keep_order(pool)
    store = PostgresStore(pool, announce, push, limits.connect.total_seconds())
    try:
        async with _present(options, owner, heard, store.unconfirmed.arose, limits) as presence:
            try:
                yield Storage(
                    store,
                    accounts=SqlIdentities(store),
                    casefiles=SqlCasefiles(store),
                    sessions=SqlSessions(store),
                    events=PostgresEvents(store, presence, store.unconfirmed),
                    tail=SqlTail(store),
                    documents=SqlDocuments(store),
                    search=PostgresSearch(store),
                    things=SqlThings(store),
                    blobs=await open_blobs(limits, directory, SqlParts(store, store)),
                    directory=directory,
                    is_shared=True,
                    is_our_turn=presence.sweeps,
                    is_sweep_due=store.unconfirmed.arose,
                    now=partial(store.point, _now),
                )
            finally:
                # What waits is written while others can still see that this process lives.
                await store.close()
    finally:
        pool.terminate()


@asynccontextmanager
async def _present(
    options: dict[str, Any],
    owner: str,
    heard: Callable[[Sequence[Change]], None],
    is_sweep_due: asyncio.Event,
    limits: StoreLimits,
) -> AsyncGenerator[Presence]:
    settings = options["server_settings"] | _OF_PRESENCE

    async def connect() -> Any:
        return await _driver.connect(**{**options, "server_settings": settings})

    presence = Presence(connect, owner, heard, is_sweep_due, limits.settle)
    with guarded("be reached"):
        await presence.begin()
    try:
        yield presence
    finally:
        await presence.end()


async def migrate_postgres(address: str, limits: StoreLimits) -> bool:
    """Bring a database to the newest schema; returns whether there was anything to do.

    Raises:
        SettingsInvalid: There can be no such address, or it asks for something that the server does not know.
        SchemaTooNew: It is newer than this version knows.
        StoreUnavailable: It does not answer, or lets nobody in.
    """
    version = await postgres_version(address, limits)
    if version == NEWEST:
        return False
    if version is not None and version > NEWEST:
        raise SchemaTooNew(f"The database is at schema {version}; this casekeeper knows {NEWEST} at most.")
    from sqlalchemy import Connection, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine

    from casekeeper.storage.sql.migrating import upgrade

    options = _options(address, limits)
    # However long another process migrates, and however long this takes on a large table.
    options["server_settings"] |= {"lock_timeout": "0", "statement_timeout": "0"}

    async def connect() -> Any:
        return await _driver.connect(**options)

    def work(connection: Connection) -> None:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        upgrade(connection)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(work)
    except (asyncpg.PostgresError, DBAPIError) as error:
        raise StoreUnavailable(f"The store's tables cannot be made: {error}.") from error
    finally:
        await engine.dispose()
    return True


async def postgres_version(address: str, limits: StoreLimits) -> str | None:
    """The schema that a database is at; None if it has none of ours yet.

    Raises:
        SettingsInvalid: There can be no such address, or it asks for something that the server does not know.
        StoreUnavailable: It does not answer, or lets nobody in.
    """
    with _reaching():
        try:
            connection: Any = await _driver.connect(**_options(address, limits))
        except _MISTAKEN as error:
            raise SettingsInvalid(f"CASEKEEPER_STORE: it asks for what cannot be: {error}.") from error
        except (ValueError, OverflowError) as error:
            # Not its own words, which may hold the password.
            raise SettingsInvalid("CASEKEEPER_STORE: its host or port cannot be read.") from error
        try:
            return await _version(connection)
        finally:
            connection.terminate()


@contextmanager
def _reaching() -> Generator[None]:
    """As `guarded`, for the first connection: only the operator reads what the server or the system answers."""
    try:
        yield
    except OUTAGES as error:
        said = str(error) if isinstance(error, asyncpg.PostgresError | OSError) else ""
        raise StoreUnavailable(f"The store cannot be reached: {said or type(error).__name__}.") from error


async def _nothing(_connection: Any) -> None:
    pass


async def _version(connection: Any) -> str | None:
    try:
        return await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None


def _now(tx: Tx) -> datetime:
    """What the server's clock says."""
    [(now,)] = tx.text("SELECT clock_timestamp()")
    return now


def _options(address: str, limits: StoreLimits) -> dict[str, Any]:
    statement_ms, lock_ms = (int(t.total_seconds() * 1000) for t in (limits.statement, limits.lock))
    return {
        "dsn": address,
        "timeout": limits.connect.total_seconds(),
        # Commits alone have some dozens; one that is prepared anew takes two more ways to the server.
        "statement_cache_size": 400,
        "server_settings": {
            "application_name": "casekeeper",
            "statement_timeout": str(statement_ms),
            "lock_timeout": str(lock_ms),
            # A process that hangs must not keep its locks.
            "idle_in_transaction_session_timeout": str(statement_ms),
            # Statements are many and small; compiling one costs more than it saves.
            "jit": "off",
        },
    }
