"""What a store promises to several processes at once, and when its server goes away."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, Change
from casekeeper.casefiles.casefile import FenceBroken
from casekeeper.errors import Overloaded, SchemaTooNew, StoreUnavailable
from casekeeper.journal.commits import Commit, Superseded
from casekeeper.journal.events import Kind, Sealed
from casekeeper.journal.requests import Claim
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.postgres.opening import migrate_postgres
from casekeeper.storage.store import Storage
from tests.contract.holding import holding
from tests.contract.shelf import GUEST, NOW, OWNER, Shelf
from tests.fakes.postgres import Postgres, running_postgres, selected

pytestmark = pytest.mark.timeout(120)

_driver: Any = asyncpg
_WAITS_FOR_THE_HEAD = """SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND wait_event <> 'advisory' AND backend_xid IS NOT NULL"""


@asynccontextmanager
async def processes(
    url: str, directory: Path, number: int = 2, pushed: list[Change] | None = None
) -> AsyncGenerator[tuple[Shelf, Sequence[Storage]]]:
    """The same database opened several times, as processes do; the shelf is the first one's."""

    def hear(changes: Sequence[Change]) -> None:
        if pushed is not None:
            pushed.extend(changes)

    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_storage(url, directory / str(n), lambda _: None, hear if n else lambda _: None)
            )
            for n in range(number)
        ]
        yield await Shelf.filled(opened[0]), opened


async def test_a_queue_that_is_full_sends_away_what_comes_and_keeps_what_waits(database: str, tmp_path: Path):
    async with processes(database, tmp_path, 1) as (_, [store]):
        callers = (store.commits.commit(Commit()) for _ in range(10_500))
        answers = await asyncio.gather(*callers, return_exceptions=True)
        await store.commits.commit(Commit())

    assert answers[:10_000] == [[]] * 10_000
    assert {type(answer) for answer in answers[10_000:]} == {Overloaded}


async def test_many_producers_in_two_processes_leave_no_gap(database: str, tmp_path: Path):
    async with processes(database, tmp_path) as (shelf, stores):
        sessions = [shelf.session_id, (await shelf.session()).session_id]

        async def produce(store: Storage, session_id: str) -> Sequence[Sealed]:
            sealed: list[Sealed] = []
            for _ in range(15):
                fact = shelf.started(session_id=session_id)
                sealed += await store.commits.commit(shelf.opening(fact))
                sealed += await store.commits.commit(shelf.ending(fact, sealed[-1].seq))
            return sealed

        both = [produce(store, session_id) for store in stores for session_id in sessions for _ in range(4)]
        made = [sealed for some in await asyncio.gather(*both) for sealed in some]

        for session_id in sessions:
            numbers = sorted(s.seq for s in made if s.fact.session_id == session_id)
            assert numbers == list(range(2, len(numbers) + 2))
        assert (await shelf.check(*sessions)).exit_code == 0


async def test_of_twenty_duplicate_requests_in_two_processes_one_runs(database: str, tmp_path: Path):
    async with processes(database, tmp_path) as (shelf, stores):

        async def ask(store: Storage) -> bool:
            fact = shelf.started()
            claim = Claim("the same", "fingerprint", fact.event_id, NOW, None)
            opening = shelf.opening(fact)
            commit = Commit(opening.facts, (*opening.conditions, claim), (*opening.records, claim))
            try:
                await store.commits.commit(commit)
            except Superseded:
                return False
            return True

        ran = await asyncio.gather(*(ask(stores[n % 2]) for n in range(20)))

        assert sum(ran) == 1


async def test_nothing_starts_beside_a_revoke_that_it_did_not_see(database: str, tmp_path: Path):
    async with processes(database, tmp_path) as (shelf, (here, there)):
        await shelf.grant(GUEST, Role.EDITOR)
        for _ in range(10):
            fence = await shelf.fence(GUEST)
            starting = [shelf.started() for _ in range(6)]
            commits = [
                Commit(o.facts, (*o.conditions, fence), o.records) for o in map(shelf.opening, starting)
            ]
            change = Commit(records=(shelf.change(GUEST, shelf.casefile_id),))

            *started, _ = await asyncio.gather(
                *(there.commits.commit(commit) for commit in commits),
                here.commits.commit(change),
                return_exceptions=True,
            )
            after = await asyncio.gather(
                *(there.commits.commit(commit) for commit in commits), return_exceptions=True
            )

            assert all(isinstance(result, FenceBroken) for result in after)
            assert all(isinstance(result, list | FenceBroken) for result in started)


@pytest.mark.parametrize(
    ("user_id", "casefile_id", "breaks"),
    [
        (GUEST, "cf_260301_abc123", True),
        (ANY, "cf_260301_abc123", True),
        (GUEST, ANY, True),
        (OWNER, "cf_260301_abc123", False),
        (GUEST, "cf_260301_ffffff", False),
    ],
)
@pytest.mark.parametrize("changes", [False, True])
async def test_what_is_committed_while_the_feed_is_waited_for_is_held_against_a_fence(
    database: str, tmp_path: Path, user_id: str, casefile_id: str, breaks: bool, changes: bool
):
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        await shelf.grant(GUEST, Role.EDITOR)
        fence, before = await shelf.fence(GUEST), (await store.accounts.head()).number
        records = (shelf.change(GUEST, "cf_260301_eeeeee"),) if changes else ()
        other = await _driver.connect(database)
        await other.execute("BEGIN; UPDATE acl_head SET number = number + 1")
        await other.execute(
            "INSERT INTO acl_feed VALUES ($1, $2, $3, 'x', 0)", before + 1, casefile_id, user_id
        )

        commit = Commit((shelf.fact(Kind.DENIED),), (fence,), records)
        waiting = asyncio.create_task(store.commits.commit(commit))
        async with asyncio.timeout(20):
            # It has written what it will commit, and waits for nothing but the head.
            while not await selected(database, _WAITS_FOR_THE_HEAD):
                await asyncio.sleep(0.01)
        await other.execute("COMMIT")
        await other.close()
        [answer] = await asyncio.gather(waiting, return_exceptions=True)

        assert isinstance(answer, FenceBroken) == breaks
        seen = [change.number for change in await store.accounts.changes(before)]
        assert seen == [before + 1, *([before + 2] if changes and not breaks else [])]
        assert (await store.accounts.head()).number == seen[-1]
        assert (await shelf.check()).exit_code == 0


async def test_a_grant_that_ends_while_the_feed_is_waited_for_starts_nothing(database: str, tmp_path: Path):
    now = NOW - timedelta(seconds=1)
    async with open_storage(database, tmp_path, lambda _: None) as store:
        shelf = await Shelf.filled(store)
        fence = replace(await shelf.fence(), ends_at=NOW, clock=lambda: now)
        other = await _driver.connect(database)
        await other.execute("BEGIN; SELECT * FROM acl_head FOR UPDATE")

        waiting = asyncio.create_task(store.commits.commit(Commit((shelf.fact(Kind.DENIED),), (fence,))))
        async with asyncio.timeout(20):
            while not await selected(database, _WAITS_FOR_THE_HEAD):
                await asyncio.sleep(0.01)
        now = NOW
        await other.execute("ROLLBACK")
        await other.close()

        with pytest.raises(FenceBroken):
            await waiting


async def test_changes_that_cross_have_no_deadlock(database: str, tmp_path: Path):
    async with processes(database, tmp_path) as (shelf, stores):
        for name in ("cf_260301_aaaaaa", "cf_260301_bbbbbb"):
            await shelf.casefile(name)
        places = ["cf_260301_aaaaaa", "cf_260301_bbbbbb", shelf.casefile_id]

        def crossing(number: int) -> Commit:
            order = places if number % 2 else places[::-1]
            return Commit(records=tuple(shelf.change(OWNER, place) for place in order))

        before = (await stores[0].accounts.head()).number
        await asyncio.gather(*(stores[n % 2].commits.commit(crossing(n)) for n in range(40)))

        assert (await stores[1].accounts.head()).number == before + 120


async def test_another_process_hears_of_a_permission_change(database: str, tmp_path: Path):
    pushed: list[Change] = []
    async with processes(database, tmp_path, pushed=pushed) as (shelf, stores):
        async with asyncio.timeout(20):
            # The listener may still be on its way when the first change is made; pushes may be lost.
            while not (guests := [change for change in pushed if change.user_id == GUEST]):
                await shelf.commit(Commit(records=(shelf.change(GUEST, shelf.casefile_id),)))
                await asyncio.sleep(0.05)
        assert (await stores[1].accounts.changes(guests[0].number - 1))[0] == guests[0]


async def test_all_processes_are_told_the_same_time(database: str, tmp_path: Path):
    async with processes(database, tmp_path) as (_, stores):
        told = [await store.now() for store in stores if store.now]
        after = await selected(database, "SELECT clock_timestamp()")

    assert [*told, after[0][0]] == sorted([*told, after[0][0]])
    assert len(told) == 2


async def test_texts_with_nul_are_kept_without_it(database: str, tmp_path: Path):
    async with processes(database, tmp_path, 1) as (shelf, (store,)):
        added = shelf.document("a\x00b", title="t\x00")
        await shelf.commit(Commit(records=(added,)))

        found = await store.documents.document(shelf.casefile_id, added.document.document_id)

        assert found is not None
        assert (found.title, found.text) == ("t\ufffd", "a\ufffdb")


async def test_the_database_refuses_to_change_a_fact(database: str, tmp_path: Path):
    async with processes(database, tmp_path, 1) as (shelf, _):
        await shelf.operation()
        connection = await _driver.connect(database)
        for sql in ("UPDATE events SET kind = 'x'", "DELETE FROM events", "TRUNCATE events"):
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                await connection.execute(sql)
        await connection.close()


async def test_a_fact_of_a_session_that_is_not_there_is_refused(database: str, tmp_path: Path):
    async with processes(database, tmp_path, 1) as (shelf, (store,)):
        lost = shelf.fact(Kind.OPENED, "ts_260301_mcomc123_ffffff")
        good = shelf.fact(Kind.OPENED)

        results = await asyncio.gather(
            store.commits.commit(Commit((lost,))),
            store.commits.commit(Commit((good,))),
            return_exceptions=True,
        )

        assert isinstance(results[0], asyncpg.ForeignKeyViolationError)
        assert isinstance(results[1], list)


# Somebody holds it up


async def test_a_casefile_that_somebody_holds_holds_up_no_other(database: str, tmp_path: Path):
    async with processes(database, tmp_path, 1) as (shelf, [store]):
        others = [f"cf_260301_{number:06x}" for number in range(8)]
        sessions = [(await shelf.session(casefile_id=(await shelf.casefile(o)).casefile_id)) for o in others]
        held: list[asyncio.Task[Sequence[Sealed]]] = []
        facts = [shelf.fact(Kind.DENIED) for _ in range(6)]
        async with holding(database, shelf.casefile_id):
            # In one batch with the others, and behind them, when it is known already that it is held.
            for fact in facts:
                held.append(asyncio.create_task(store.commits.commit(Commit((fact,)))))
                elsewhere = (
                    shelf.fact(Kind.DENIED, one.session_id, casefile_id=one.casefile_id) for one in sessions
                )
                await asyncio.gather(*(store.commits.commit(Commit((other,))) for other in elsewhere))
            waited = [task.done() for task in held]
        await asyncio.gather(*held)

        assert waited == [False] * 6
        kept = [json.loads(f.header)["event_id"] for f in await shelf.facts()]
        assert kept[1:] == [fact.event_id for fact in facts]
        assert (await shelf.check(*(one.session_id for one in sessions))).exit_code == 0


async def test_other_sessions_of_a_casefile_go_on_while_another_process_works_in_one(
    database: str, tmp_path: Path
):
    limits = StoreLimits(lock=timedelta(milliseconds=200))
    async with open_storage(database, tmp_path, lambda _: None, limits=limits) as store:
        shelf = await Shelf.filled(store)
        other = (await shelf.session()).session_id
        async with holding(database, shelf.casefile_id, session_id=shelf.session_id):
            await shelf.operation(session_id=other)
            results = await asyncio.gather(
                shelf.commit(Commit((shelf.fact(Kind.DENIED),))),
                shelf.grant(GUEST, Role.EDITOR),
                shelf.session(),
                return_exceptions=True,
            )
        await shelf.operation()
        await shelf.grant(GUEST, Role.EDITOR)

        assert [type(result) for result in results] == [StoreUnavailable] * 3
        assert (await shelf.check(shelf.session_id, other)).exit_code == 0


async def test_what_is_held_for_too_long_fails_alone(database: str, tmp_path: Path):
    limits = StoreLimits(lock=timedelta(milliseconds=200))
    async with open_storage(database, tmp_path, lambda _: None, limits=limits) as store:
        shelf = await Shelf.filled(store)
        other = await shelf.casefile("cf_260301_aaaaaa")
        session = await shelf.session(casefile_id=other.casefile_id)
        there = shelf.fact(Kind.DENIED, session.session_id, casefile_id=other.casefile_id)
        async with holding(database, shelf.casefile_id):
            results = await asyncio.gather(
                store.commits.commit(Commit((shelf.fact(Kind.DENIED),))),
                store.commits.commit(Commit((there,))),
                return_exceptions=True,
            )
        await store.commits.commit(Commit((shelf.fact(Kind.DENIED),)))

        assert [type(result) for result in results] == [StoreUnavailable, list]


async def test_when_every_connection_is_taken_the_store_is_overloaded(database: str, tmp_path: Path):
    limits = StoreLimits(connections=3, connect=timedelta(milliseconds=300))
    async with open_storage(database, tmp_path, lambda _: None, limits=limits) as store:
        shelf = await Shelf.filled(store)
        casefiles = [(await shelf.casefile(f"cf_260301_{n:06x}")).casefile_id for n in range(3)]
        async with holding(database, *casefiles):
            held = [
                asyncio.create_task(store.commits.commit(Commit(records=(shelf.change(OWNER, one),))))
                for one in casefiles
            ]
            async with asyncio.timeout(20):
                while True:
                    try:
                        await store.accounts.head()
                    except Overloaded:
                        break
            refused = await asyncio.gather(
                store.commits.commit(Commit(records=(shelf.change(GUEST),))), return_exceptions=True
            )
        await asyncio.gather(*held)
        await store.accounts.head()

        assert [type(result) for result in refused] == [Overloaded]


# Its server goes away


async def test_while_the_server_is_away_everything_is_unavailable_and_then_goes_on(tmp_path: Path):
    limits = StoreLimits()
    with running_postgres() as server:
        url = await server.migrated()
        async with open_storage(url, tmp_path, lambda _: None, limits=limits) as store:
            shelf = await Shelf.filled(store)
            server.kill()
            with pytest.raises(StoreUnavailable):
                await store.accounts.head()
            refused = await asyncio.gather(
                *(store.commits.commit(shelf.opening(shelf.started())) for _ in range(5)),
                return_exceptions=True,
            )
            assert all(isinstance(result, StoreUnavailable) for result in refused)
            server.start()
            async with asyncio.timeout(20):
                while True:
                    try:
                        await store.commits.commit(shelf.opening(shelf.started()))
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)
            assert (await shelf.check()).exit_code == 0


async def test_a_lock_that_another_holds_for_too_long_is_an_outage(database: str, tmp_path: Path):
    limits = StoreLimits(lock=timedelta(milliseconds=200))
    async with open_storage(database, tmp_path, lambda _: None, limits=limits) as store:
        shelf = await Shelf.filled(store)
        holder = await _driver.connect(database)
        await holder.execute("BEGIN; SELECT * FROM acl_head FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="cannot write"):
            await store.commits.commit(Commit(records=(shelf.change(),)))
        await holder.execute("ROLLBACK")
        await holder.close()
        await store.commits.commit(Commit(records=(shelf.change(),)))


# Schemas


async def test_a_database_of_a_newer_casekeeper_is_left_alone(database: str):
    connection = await _driver.connect(database)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        await migrate_postgres(database, StoreLimits())
    await connection.close()


async def test_two_processes_that_start_at_once_migrate_once(postgres: Postgres):
    url = await postgres.make()

    done = await asyncio.gather(*(migrate_postgres(url, StoreLimits()) for _ in range(3)))

    assert any(done)
    assert await migrate_postgres(url, StoreLimits()) is False
    await postgres.drop(url)
