"""Opens a data directory: lock, migrations, store, blobs, keys' folder; and closes it again."""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from casekeeper.acl_feed import Change
from casekeeper.errors import DirectoryUnusable, SchemaTooNew
from casekeeper.journal.events import Sealed
from casekeeper.storage.blobs.opening import open_blobs
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sql.blobs import SqlParts
from casekeeper.storage.sql.casefiles import SqlCasefiles
from casekeeper.storage.sql.documents import SqlDocuments
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.identities import SqlIdentities
from casekeeper.storage.sql.migrating import NEWEST
from casekeeper.storage.sql.sessions import SqlSessions
from casekeeper.storage.sql.tail import SqlTail
from casekeeper.storage.sql.things import SqlThings
from casekeeper.storage.sqlite.search import SqliteSearch
from casekeeper.storage.sqlite.store import DirectoryLock, SqliteStore, connect
from casekeeper.storage.store import Storage, nobody


@asynccontextmanager
async def open_embedded(
    directory: Path,
    announce: Callable[[Sequence[Sealed]], None],
    push: Callable[[Sequence[Change]], None] = nobody,
    limits: StoreLimits | None = None,
) -> AsyncGenerator[Storage]:
    """The store in a directory, made or migrated where needed.

    Facts are announced and permission changes pushed when they are on disk, before their commits are answered.

    Raises:
        DirectoryInUse: Another process holds it.
        SchemaTooNew: It belongs to a newer version.
        SettingsInvalid: There is no such blob store.
        DirectoryUnusable: It cannot be written, or is damaged.
        StoreUnavailable: The blob store does not answer.
    """
    lock = DirectoryLock(directory)
    try:
        path = directory / "casekeeper.db"
        with usable(directory):
            migrate(path)
            store = SqliteStore(path, announce, push)
        try:
            yield Storage(
                store,
                accounts=SqlIdentities(store),
                casefiles=SqlCasefiles(store),
                sessions=SqlSessions(store),
                events=SqlEvents(store),
                tail=SqlTail(store),
                documents=SqlDocuments(store),
                search=SqliteSearch(store),
                things=SqlThings(store),
                blobs=await open_blobs(limits or StoreLimits(), directory, SqlParts(store, store)),
                directory=directory,
            )
        finally:
            await store.close()
    finally:
        lock.release()


@contextmanager
def usable(directory: Path) -> Generator[None]:
    """What SQLite or the file system says of a directory while it is opened, as an error of ours.

    Raises:
        DirectoryUnusable: It cannot be read or written, or its database is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise DirectoryUnusable(f"The store in {directory} cannot be used: {error}.") from error
    except OSError as error:
        raise DirectoryUnusable(f"{directory} cannot be used: {error.strerror or error}.") from error


def schema_version(path: Path) -> str | None:
    """The migration at which a database is; None if it has none."""
    if not path.exists():
        return None
    connection = connect(path, read_only=True)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()
    return row[0] if row else None


def migrate(path: Path) -> bool:
    """Bring a database to the newest schema; returns whether there was anything to do.

    Raises:
        SchemaTooNew: It is newer than this version knows.
    """
    version = schema_version(path)
    if version == NEWEST:
        return False
    if version is not None and version > NEWEST:
        raise SchemaTooNew(f"{path} is at schema {version}; this casekeeper knows {NEWEST} at most.")
    from sqlalchemy import create_engine

    from casekeeper.storage.sql.migrating import upgrade

    connect(path).close()
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            upgrade(connection)
    finally:
        engine.dispose()
    return True


def rebuild_search(path: Path) -> int:
    """Make the search index anew from the documents; returns how many there are.

    Raises:
        SchemaTooNew: The database is newer than this version knows.
    """
    migrate(path)
    with closing(connect(path)) as connection:
        connection.execute("INSERT INTO document_search(document_search) VALUES ('rebuild')")
        # What was deleted has no words left, so that nothing of it comes back.
        return connection.execute("SELECT count(*) FROM documents WHERE deleted_us IS NULL").fetchone()[0]
