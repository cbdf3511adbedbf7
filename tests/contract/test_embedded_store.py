"""What only the embedded store promises: it guards its file, its schema and its queue."""

import asyncio
import resource
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from casekeeper.errors import Overloaded, StoreUnavailable
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.storage.sql.schema import SQLITE_SEARCH, SQLITE_TRIGGERS, metadata
from casekeeper.storage.sqlite.opening import open_embedded
from casekeeper.storage.store import Storage
from tests.contract.conftest import Opening
from tests.contract.shelf import Shelf

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def opening(tmp_path: Path, migrated: Path) -> Opening:
    shutil.copytree(migrated, tmp_path / "data")
    return lambda: open_embedded(tmp_path / "data", lambda _: None)


def database(storage: Storage) -> Path:
    return storage.directory / "casekeeper.db"


# The record is append-only


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET header = x'7b7d'",
        "UPDATE events SET kind = 'succeeded' WHERE seq = 1",
        "UPDATE events SET seq = seq + 1",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 1",
        "REPLACE INTO events SELECT * FROM events",
    ],
)
async def test_the_database_refuses_to_change_a_fact(shelf: Shelf, sql: str):
    before = await shelf.facts()

    with closing(sqlite3.connect(database(shelf.storage))) as connection:
        connection.execute("PRAGMA recursive_triggers=ON")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(sql)

    assert await shelf.facts() == before


async def test_the_database_refuses_a_number_twice(shelf: Shelf):
    columns = "session_id, seq, casefile_id, event_id, kind, actor, at_us, header, commitment, hash"

    with (
        closing(sqlite3.connect(database(shelf.storage))) as connection,
        pytest.raises(sqlite3.IntegrityError, match="UNIQUE"),
    ):
        connection.execute(f"INSERT INTO events ({columns}) SELECT {columns} FROM events LIMIT 1")


# The schema


def _schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        ).fetchall()
    # Spaces and quotes differ between what Alembic and SQLAlchemy write; what they say must not.
    said = {f"{kind} {name}": "".join(sql.replace('"', "").split()) for kind, name, sql in rows}
    return {name: sql for name, sql in said.items() if "alembic_version" not in name}


async def test_migrations_make_what_the_tables_say(storage: Storage, tmp_path: Path):
    path = tmp_path / "made.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for statement in (*SQLITE_TRIGGERS, *SQLITE_SEARCH):
            connection.exec_driver_sql(statement)
    engine.dispose()

    assert _schema(database(storage)) == _schema(path)


async def test_commits_are_on_disk_before_they_are_answered(storage: Storage):
    with closing(sqlite3.connect(database(storage))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# When it cannot write


async def test_a_full_queue_refuses_at_once_and_recovers(shelf: Shelf):
    tasks = [asyncio.ensure_future(shelf.commit(Commit())) for _ in range(10_050)]

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(refused) == 50
    assert all(refusal.retryable for refusal in refused)
    await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))


@contextmanager
def _no_more_than(size: int) -> Generator[None]:
    """The operating system refuses to make any file larger: SQLite calls that a disk I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def _fail_the_disk(shelf: Shelf, commits: int) -> list[object]:
    log = database(shelf.storage).with_name("casekeeper.db-wal")
    waiting = [Commit((shelf.fact(Kind.STARTED, body="x" * 100_000),)) for _ in range(commits)]
    with _no_more_than(log.stat().st_size + 1):
        tasks = [asyncio.ensure_future(shelf.commit(commit)) for commit in waiting]
        return list(await asyncio.gather(*tasks, return_exceptions=True))


@pytest.mark.parametrize("commits", [1, 20, 600])
async def test_an_error_of_the_disk_refuses_everybody_who_waits(shelf: Shelf, commits: int):
    answers = await _fail_the_disk(shelf, commits)

    assert [type(answer) for answer in answers] == [StoreUnavailable] * commits


async def test_after_an_error_of_the_disk_nothing_is_written_until_a_restart(shelf: Shelf):
    await _fail_the_disk(shelf, 3)

    with pytest.raises(StoreUnavailable, match="restarted"):
        await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))

    assert not shelf.storage.commits.is_writable
    assert [fact.seq for fact in await shelf.facts()] == [1]


async def test_a_restart_after_an_error_of_the_disk_finds_a_whole_record(tmp_path: Path):
    async with open_embedded(tmp_path / "data", lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        await shelf.operation()
        await _fail_the_disk(shelf, 20)

    async with open_embedded(tmp_path / "data", lambda _: None) as storage:
        shelf.storage = storage
        await shelf.operation()

        assert [fact.seq for fact in await shelf.facts()] == [1, 2, 3, 4, 5]
        assert (await shelf.check()).exit_code == 0
        with closing(sqlite3.connect(database(storage))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
