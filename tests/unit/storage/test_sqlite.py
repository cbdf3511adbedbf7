import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.acl_feed import Change
from casekeeper.errors import DirectoryInUse, Overloaded, SessionNotFound, StoreUnavailable
from casekeeper.identity.accounts import Account, AccountAbsent, PutAccount, StoredAccount
from casekeeper.journal.commits import Commit, PermissionChanged, Record
from casekeeper.journal.events import Fact, Kind, Payload, Sealed
from casekeeper.journal.requests import AlreadyClaimed, Claim, ReleaseClaim
from casekeeper.sessions.session import PutSession, SessionIsOpen, UnifiedSession
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sqlite.store import DirectoryLock, SqliteStore, connect
from tests.unit.support import NOW

SESSION = "ts_251023_ecomcf44_9607c3"
CASEFILE = "cf_251023_5acf44"


class Announced(list[Sealed]):
    """What the store told the followers."""

    def __call__(self, sealed: Sequence[Sealed]) -> None:
        self.extend(sealed)


@pytest.fixture
def announced() -> Announced:
    return Announced()


@pytest.fixture
async def store(directory: Path, announced: Announced) -> AsyncGenerator[SqliteStore]:
    opened = SqliteStore(directory / "casekeeper.db", announced, lambda _: None)
    yield opened
    await opened.close()


def a_fact(session_id: str = SESSION, body: bytes = b"{}") -> Fact:
    return Fact(
        casefile_id=CASEFILE,
        session_id=session_id,
        event_id="evt_1",
        kind=Kind.OPENED,
        actor="usr_1",
        started_at=NOW,
        payload=Payload.of(body),
    )


def an_account(user_id: str) -> PutAccount:
    account = Account(user_id=user_id, created_at=NOW, pseudonym=f"usr_{user_id}")
    return PutAccount(StoredAccount(account, None))


def a_session(session_id: str = SESSION) -> PutSession:
    session = UnifiedSession(
        session_id=session_id, casefile_id=CASEFILE, user_id="a@b.c", created_at=NOW, last_activity_at=NOW
    )
    return PutSession(session)


async def seqs(store: SqliteStore) -> list[int]:
    rows = await store.scan(lambda tx: tx.text("SELECT seq FROM events ORDER BY session_id, seq"))
    return [row[0] for row in rows]


# Commits


async def test_facts_get_consecutive_numbers_in_the_order_given(store: SqliteStore):
    await store.commit(Commit(records=(a_session(),)))

    sealed = await store.commit(Commit((a_fact(), a_fact())))
    more = await store.commit(Commit((a_fact(),)))

    assert [s.seq for s in (*sealed, *more)] == [1, 2, 3]


async def test_what_was_committed_is_announced(store: SqliteStore, announced: Announced):
    await store.commit(Commit((a_fact(),), (), (a_session(),)))

    assert [s.seq for s in announced] == [1]


async def test_permission_changes_are_pushed_before_their_commit_is_answered(directory: Path):
    story: list[object] = []
    store = SqliteStore(directory / "casekeeper.db", lambda _: None, story.extend)
    changes = [PermissionChanged(CASEFILE, user_id, "granted", NOW) for user_id in ("a@b.c", "*")]

    await store.commit(Commit(records=changes))
    story.append("answered")
    await store.close()

    assert story == [Change(1, CASEFILE, "a@b.c"), Change(2, CASEFILE, "*"), "answered"]


async def test_a_refused_permission_change_is_not_pushed(directory: Path):
    pushed: list[Change] = []
    store = SqliteStore(directory / "casekeeper.db", lambda _: None, pushed.extend)
    change = PermissionChanged(CASEFILE, "*", "granted", NOW)

    with pytest.raises(SessionNotFound):
        await store.commit(Commit((), (SessionIsOpen("ts_none"),), (change,)))
    await store.close()

    assert pushed == []


async def test_a_refused_commit_leaves_no_gap_and_disturbs_nobody(store: SqliteStore, announced: Announced):
    await store.commit(Commit(records=(a_session(),)))
    good, bad = Commit((a_fact(),)), Commit((a_fact(),), (SessionIsOpen("ts_none"),))

    answers = await asyncio.gather(
        *(store.commit(c) for c in (good, bad, good, bad, good)), return_exceptions=True
    )

    assert [isinstance(a, BaseException) for a in answers] == [False, True, False, True, False]
    assert await seqs(store) == [1, 2, 3]
    assert [s.seq for s in announced] == [1, 2, 3]


async def test_conditions_of_a_batch_see_what_came_before(store: SqliteStore):
    commit = Commit((), (AccountAbsent("a@b.c"),), (an_account("a@b.c"),))

    answers = await asyncio.gather(*(store.commit(commit) for _ in range(5)), return_exceptions=True)

    assert [type(a).__name__ for a in answers].count("AccountExists") == 4


async def test_one_poisonous_commit_fails_alone(store: SqliteStore):
    await store.commit(Commit(records=(a_session(),)))
    good, poison = Commit((a_fact(),)), Commit((a_fact("ts_no_such_session"),))

    answers = await asyncio.gather(*(store.commit(c) for c in (good, poison, good)), return_exceptions=True)

    assert [type(a).__name__ for a in answers if isinstance(a, BaseException)] == ["LookupError"]
    assert await seqs(store) == [1, 2]


async def test_a_record_that_the_store_does_not_know_is_a_bug_and_no_outage(store: SqliteStore):
    class Unknown(Record):
        """Nobody wrote a statement for this."""

    with pytest.raises(KeyError):
        await store.commit(Commit(records=(Unknown(),)))

    assert store.is_writable


async def test_a_violated_constraint_is_a_bug_and_no_outage(store: SqliteStore):
    await store.commit(Commit(records=(a_session(),)))

    with pytest.raises(sqlite3.IntegrityError):
        await store.commit(Commit(records=(a_session(),)))


async def test_a_caller_who_leaves_does_not_undo_the_commit(store: SqliteStore):
    task = asyncio.create_task(store.commit(Commit((a_fact(),), (), (a_session(),))))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await store.commit(Commit())

    assert await seqs(store) == [1]


async def test_a_caller_who_leaves_hears_no_refusal(store: SqliteStore):
    task = asyncio.create_task(store.commit(Commit((), (SessionIsOpen("ts_none"),))))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    await store.commit(Commit())
    assert store.is_writable


@pytest.mark.parametrize(
    "sql", ["UPDATE events SET kind = 'x'", "DELETE FROM events", "UPDATE events SET header = x'00'"]
)
async def test_the_database_refuses_to_change_what_was_recorded(
    store: SqliteStore, directory: Path, sql: str
):
    await store.commit(Commit((a_fact(),), (), (a_session(),)))

    with (
        closing(sqlite3.connect(directory / "casekeeper.db")) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(sql)


# Outages


async def test_a_full_disk_refuses_writes_until_there_is_room(directory: Path):
    path = directory / "casekeeper.db"
    store = Limited(path, lambda _: None, lambda _: None)
    try:
        await store.commit(Commit(records=(a_session(),)))
        with pytest.raises(StoreUnavailable) as unavailable:
            await store.commit(Commit((a_fact(body=b'"' + b"x" * 9_000_000 + b'"'),)))
        after = await store.commit(Commit((a_fact(),)))
    finally:
        await store.close()

    assert unavailable.value.retryable
    assert "full" in unavailable.value.detail
    assert [s.seq for s in after] == [1]


class Limited(SqliteStore):
    """A store on a disk of 4 MB: SQLite's own limit on pages stands for the disk's."""

    def _commit(self, connection: sqlite3.Connection, batch: Any) -> Any:
        connection.execute("PRAGMA max_page_count=1000")
        return super()._commit(connection, batch)


async def test_a_database_that_somebody_else_holds_is_an_outage_and_passes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Impatient(directory / "casekeeper.db", lambda _: None, lambda _: None)
    rival = connect(directory / "casekeeper.db")
    try:
        await store.commit(Commit(records=(a_session(),)))
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.commit(Commit((a_fact(),)))
        rival.execute("ROLLBACK")
        sealed = await store.commit(Commit((a_fact(),)))
    finally:
        rival.close()
        await store.close()

    assert (store.is_writable, [s.seq for s in sealed]) == (False, [1])


class Impatient(SqliteStore):
    """A store that waits 20 ms for the lock, where the real one waits five seconds."""

    def _commit(self, connection: sqlite3.Connection, batch: Any) -> Any:
        connection.execute("PRAGMA busy_timeout=20")
        return super()._commit(connection, batch)


async def test_a_broken_file_takes_the_store_out_of_service(directory: Path):
    path = directory / "casekeeper.db"
    store = Spoiled(path, lambda _: None, lambda _: None)
    try:
        await store.commit(Commit(records=(a_session(),)))
        with pytest.raises(StoreUnavailable):
            await store.commit(Commit((a_fact(),)))
        with pytest.raises(StoreUnavailable, match="until the server is restarted"):
            await store.commit(Commit((a_fact(),)))
        assert not store.is_writable
    finally:
        await store.close()


class Spoiled(SqliteStore):
    """A store whose file is overwritten by something else before its second commit."""

    _commits = 0

    def _commit(self, connection: sqlite3.Connection, batch: Any) -> Any:
        self._commits += 1
        if self._commits == 2:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA cache_size=0")
            with open(self._path, "r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * 400_000)
            connection.execute("PRAGMA shrink_memory")
        return super()._commit(connection, batch)


# Reads


async def test_whoever_was_told_of_a_commit_sees_it(store: SqliteStore):
    await store.commit(Commit(records=(a_session(),)))
    for number in range(1, 20):
        await store.commit(Commit((a_fact(),)))
        rows = await store.point(lambda tx: tx.text("SELECT count(*) FROM events"))
        assert rows[0][0] == number


async def test_all_statements_of_a_read_see_one_snapshot(store: SqliteStore):
    await store.commit(Commit(records=(a_session(),)))
    loop = asyncio.get_running_loop()

    def read(tx: Tx) -> tuple[int, int]:
        def count() -> int:
            return tx.text("SELECT count(*) FROM events")[0][0]

        before = count()
        asyncio.run_coroutine_threadsafe(store.commit(Commit((a_fact(),))), loop).result()
        return before, count()

    assert await store.scan(read) == (0, 0)
    assert await seqs(store) == [1]


Reading = Callable[[Callable[[Tx], Any]], Awaitable[Any]]


@pytest.mark.parametrize("way", ["point", "scan"])
async def test_readers_cannot_write(store: SqliteStore, way: str):
    read: Reading = getattr(store, way)

    with pytest.raises((sqlite3.OperationalError, StoreUnavailable)):
        await read(lambda tx: tx.text("DELETE FROM accounts"))


@pytest.mark.parametrize("way", ["point", "scan"])
async def test_a_wrong_statement_is_a_bug_and_no_outage(store: SqliteStore, way: str):
    read: Reading = getattr(store, way)

    with pytest.raises(sqlite3.OperationalError):
        await read(lambda tx: tx.text("SELECT nothing FROM nowhere"))


@pytest.mark.parametrize("way", ["point", "scan"])
async def test_an_error_of_the_reader_itself_passes_through(store: SqliteStore, way: str):
    read: Reading = getattr(store, way)

    def fails(_: Tx) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await read(fails)
    assert await read(lambda tx: tx.text("SELECT 1")) == [(1,)]


# Ending


async def test_closing_writes_what_waits(directory: Path):
    store = SqliteStore(directory / "casekeeper.db", lambda _: None, lambda _: None)
    await store.commit(Commit(records=(a_session(),)))
    waiting = [asyncio.create_task(store.commit(Commit((a_fact(),)))) for _ in range(600)]
    await asyncio.sleep(0)

    await store.close()

    with closing(sqlite3.connect(directory / "casekeeper.db")) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (600,)
    assert [sealed[0].seq for sealed in await asyncio.gather(*waiting)] == list(range(1, 601))


async def test_a_queue_that_is_full_sends_away_what_comes_and_keeps_what_waits(directory: Path):
    store = SqliteStore(directory / "casekeeper.db", lambda _: None, lambda _: None)
    callers = (store.commit(Commit()) for _ in range(10_500))

    answers = await asyncio.gather(*callers, return_exceptions=True)
    await store.commit(Commit())
    await store.close()

    assert answers[:10_000] == [[]] * 10_000
    assert {type(answer) for answer in answers[10_000:]} == {Overloaded}


async def test_a_closed_store_takes_nothing(directory: Path):
    store = SqliteStore(directory / "casekeeper.db", lambda _: None, lambda _: None)
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.commit(Commit())


# The lock of the directory


def test_a_directory_is_held_by_one(tmp_path: Path):
    lock = DirectoryLock(tmp_path)

    with pytest.raises(DirectoryInUse):
        DirectoryLock(tmp_path)
    lock.release()


def test_a_released_directory_can_be_held_again(tmp_path: Path):
    DirectoryLock(tmp_path).release()

    DirectoryLock(tmp_path).release()


def test_a_lock_makes_its_directory_for_its_owner_only(tmp_path: Path):
    DirectoryLock(tmp_path / "new" / "data").release()

    assert (tmp_path / "new" / "data").stat().st_mode & 0o077 == 0


async def test_a_claim_that_is_released_in_its_own_transaction_holds_until_its_time(store: SqliteStore):
    made = Claim("k", "fingerprint", "evt_1", NOW, None)
    again = Claim("k", "fingerprint", "evt_2", NOW, None)
    late = Claim("k", "fingerprint", "evt_3", NOW + timedelta(hours=1), None)

    # All at once is one transaction, in this order.
    results = await asyncio.gather(
        store.commit(Commit((), (made,), (made,))),
        store.commit(Commit(records=(ReleaseClaim("evt_1", NOW + timedelta(hours=1)),))),
        store.commit(Commit((), (again,), (again,))),
        store.commit(Commit((), (late,), (late,))),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [list, list, AlreadyClaimed, list]
    assert await store.point(lambda tx: tx.text("SELECT made, expires_us FROM requests")) == [("evt_3", None)]
