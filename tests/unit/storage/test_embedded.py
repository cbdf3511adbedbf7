import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy import inspect as inspected

from casekeeper.documents.query_parser import parse_query
from casekeeper.documents.search import Order, PageStart
from casekeeper.errors import DirectoryInUse, SchemaTooNew
from casekeeper.storage.sql import schema
from casekeeper.storage.sql.migrating import NEWEST
from casekeeper.storage.sqlite.opening import migrate, open_embedded, schema_version
from tests.unit.support import make_template


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def migrated_to(directory: Path, revision: str) -> Path:
    """A database at an older schema."""
    path = directory / "casekeeper.db"
    config = Config()
    config.set_main_option("script_location", "casekeeper:storage/migrations")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    return path


def test_a_new_database_is_migrated(tmp_path: Path):
    path = tmp_path / "casekeeper.db"

    assert (schema_version(path), migrate(path), schema_version(path)) == (None, True, NEWEST)


def test_a_migrated_database_needs_no_migration(directory: Path):
    assert migrate(directory / "casekeeper.db") is False


def test_a_database_of_a_newer_casekeeper_is_left_alone(directory: Path):
    path = directory / "casekeeper.db"
    execute(path, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaTooNew, match="9999"):
        migrate(path)

    assert schema_version(path) == "9999"


def test_an_empty_file_is_migrated(tmp_path: Path):
    path = tmp_path / "casekeeper.db"
    path.touch()

    assert (schema_version(path), migrate(path)) == (None, True)


def test_a_database_without_its_version_is_told_so(directory: Path):
    path = directory / "casekeeper.db"
    execute(path, "DELETE FROM alembic_version")

    assert schema_version(path) is None


def test_the_migrations_make_the_tables_that_the_statements_know(directory: Path):
    engine = create_engine(f"sqlite:///{directory / 'casekeeper.db'}")
    found = inspected(engine)
    tables = {
        table: {column["name"] for column in found.get_columns(table)}
        for table in found.get_table_names()
        if not table.startswith(("alembic_version", "document_search"))
    }
    engine.dispose()

    assert tables == {name: {c.name for c in table.c} for name, table in schema.metadata.tables.items()}


def test_the_migrations_make_the_indexes_that_the_statements_know(directory: Path):
    engine = create_engine(f"sqlite:///{directory / 'casekeeper.db'}")
    found = inspected(engine)
    indexes = {index["name"] for table in schema.metadata.tables for index in found.get_indexes(table)}
    engine.dispose()

    wanted = {index.name for table in schema.metadata.tables.values() for index in table.indexes}
    assert indexes == wanted


async def test_documents_of_the_first_schema_are_found_as_new_ones_are(tmp_path: Path):
    path = migrated_to(tmp_path, "0001")
    metadata = {
        "cc": ["law@example.net"],
        "labels": ["Flat/Rent"],
        "attachments": ["lease.pdf"],
        "message_id": "1@example.com",
        "thread_id": "17",
        "problems": ["odd"],
    }
    columns = "document_id, casefile_id, kind, title, sender, recipients, body, scope, sent_us, size, sha256, source, "
    columns += "metadata, created_us, created_by, event_id"
    row = (
        "doc_19ca9450a004caf7c6e45dc6c97",
        "cf_260301_abc123",
        "mail",
        "Rent",
        "ann@example.com",
        "bob@example.org\nlaw@example.net",
        "Pay!",
        "cf260301abc123",
        5,
    )
    row += (4, "a" * 64, "x.mbox", json.dumps(metadata), 7, "ann@example.com", "evt_1")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"INSERT INTO documents ({columns}) VALUES ({', '.join('?' * len(row))})", row)

    async with open_embedded(tmp_path, lambda _: None) as storage:
        for query in (
            "label:flat-rent cc:law has:attachment filename:lease",
            "rfc822msgid:1@example.com pay",
        ):
            term = parse_query(query, datetime(2026, 1, 1, tzinfo=UTC))
            [found] = await storage.search.search("cf_260301_abc123", term, Order.NEWEST, PageStart(), 10)

            assert found.hit.recipients == ["bob@example.org"]
            assert (found.hit.thread_id, found.hit.cc) == ("17", ["law@example.net"])
        document = await storage.documents.document("cf_260301_abc123", "doc_19ca9450a004caf7c6e45dc6c97")

    assert document is not None
    assert (document.text, document.metadata) == ("Pay!", {"problems": ["odd"]})


async def test_casefiles_granted_before_grants_had_an_age_are_listed_by_theirs(tmp_path: Path):
    path = migrated_to(tmp_path, "0005")
    for number in (1, 2, 3):
        casefile = f"'cf_26010{number}_abcdef', 'Rent', '', '[]', 'active', 'none', 'ann@example.com', 1, {4 - number}, 1, '', NULL, NULL"
        execute(path, f"INSERT INTO casefiles VALUES ({casefile})")
        grant = (
            f"'ann@example.com', 'cf_26010{number}_abcdef', 'owner', NULL, 'ann@example.com', {number}, NULL"
        )
        execute(path, f"INSERT INTO grants VALUES ({grant})")

    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with open_embedded(tmp_path, lambda _: None) as storage:
        listed = await storage.casefiles.casefiles_of(
            "ann@example.com", now, None, (3, "cf_260101_abcdef"), 10
        )

    assert [casefile.casefile_id for casefile, _ in listed] == ["cf_260102_abcdef", "cf_260103_abcdef"]


def test_every_store_starts_an_epoch_of_its_own(tmp_path: Path):
    epochs = set[str]()
    for name in ("one", "two"):
        directory = make_template(tmp_path / name)
        with closing(sqlite3.connect(directory / "casekeeper.db")) as connection:
            epochs.add(connection.execute("SELECT epoch FROM acl_head").fetchone()[0])

    assert len(epochs) == 2


async def test_an_open_directory_is_held(directory: Path):
    async with open_embedded(directory, lambda _: None):
        with pytest.raises(DirectoryInUse):
            async with open_embedded(directory, lambda _: None):
                pytest.fail("two processes would write into one directory")


async def test_a_closed_directory_can_be_opened_again(directory: Path):
    for _ in range(2):
        async with open_embedded(directory, lambda _: None) as storage:
            assert (await storage.accounts.head()).number == 0


async def test_a_directory_that_cannot_be_opened_is_let_go(directory: Path):
    execute(directory / "casekeeper.db", "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew):
        async with open_embedded(directory, lambda _: None):
            pass
    execute(directory / "casekeeper.db", f"UPDATE alembic_version SET version_num = '{NEWEST}'")

    async with open_embedded(directory, lambda _: None) as storage:
        assert storage.commits.is_writable


async def test_the_data_are_for_their_owner_only(tmp_path: Path):
    async with open_embedded(tmp_path / "data", lambda _: None):
        modes = {p.name: p.stat().st_mode & 0o077 for p in (tmp_path / "data", tmp_path / "data" / "blobs")}

    assert modes == {"data": 0, "blobs": 0}


async def test_facts_from_before_there_was_a_tail_are_in_it(tmp_path: Path):
    path = migrated_to(tmp_path, "0006")
    for number, name in enumerate("abab"):
        execute(
            path,
            "INSERT INTO events (session_id, seq, casefile_id, event_id, kind, actor, at_us, header, commitment, hash) "
            f"VALUES ('{name}', {number // 2 + 1}, 'cf', 'evt_{number}', 'denied', 'usr', {9 - number}, x'7b7d', x'', x'')",
        )

    async with open_embedded(tmp_path, lambda _: None) as storage:
        first, position = await storage.tail.read("cf", None, 3)
        rest, _ = await storage.tail.read("cf", position, 3)

    assert [one.event_id for one in (*first, *rest)] == ["evt_0", "evt_1", "evt_2", "evt_3"]
    assert [one.fact.session_id for one in rest] == ["b"]
