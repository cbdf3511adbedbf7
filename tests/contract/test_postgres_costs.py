"""What reading costs in PostgreSQL, counted in statements and in the rows that they look at; never in time."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.acl import Role
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.things import Put, Thing, Topic
from casekeeper.sessions.reading import EventPage
from casekeeper.sessions.session import SessionFilter
from casekeeper.storage.opening import open_storage
from casekeeper.storage.sql.casefiles import SqlCasefiles
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.sessions import SqlSessions
from casekeeper.storage.sql.things import SqlThings
from tests.contract.explained import Explained
from tests.contract.shelf import GUEST, NOW, OWNER, Shelf

pytestmark = pytest.mark.timeout(120)

SHORT, LONG = 10, 1_000
FEW, MANY = 3, 100
PAGE = 5


async def test_a_session_costs_the_same_however_long_it_is(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        sessions = {SHORT: shelf.session_id, LONG: (await shelf.session()).session_id}
        for size, session_id in sessions.items():
            facts = [shelf.fact(Kind.DENIED, session_id) for _ in range(size - 1)]
            await asyncio.gather(*(shelf.commit(Commit((fact,))) for fact in facts))
    reads, costs = Explained(database), dict[int, list[tuple[int, int]]]()
    for size, session_id in sessions.items():
        session = await SqlSessions(reads).session(session_id)
        assert session is not None
        assert session.head is not None
        assert session.head.seq == size
        costs[size] = [reads.taken()]
        await SqlSessions(reads).totals(session_id)
        costs[size].append(reads.taken())
        for order in ("asc", "desc"):
            wanted = EventPage.model_validate({"view": "journal", "order": order})
            assert len(await SqlEvents(reads).facts(session_id, wanted, None, PAGE)) == PAGE
            costs[size].append(reads.taken())

    # Of a short one it may read all and sort it.
    for long, short in zip(costs[LONG], costs[SHORT], strict=True):
        assert long[0] == short[0]
        assert long[1] <= short[1]


async def test_a_page_of_casefiles_costs_the_same_however_many_there_are(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        made = (
            shelf.casefile(f"cf_260301_{number:06x}", created_at=NOW + timedelta(seconds=number))
            for number in range(MANY - 1)
        )
        await asyncio.gather(*made)
        for number in range(MANY - 1 - FEW, MANY - 1):
            await shelf.grant(GUEST, Role.VIEWER, casefile_id=f"cf_260301_{number:06x}")
    reads, costs = Explained(database), dict[str, list[tuple[int, int]]]()
    newest = f"cf_260301_{MANY - 2:06x}"
    for user_id in (OWNER, GUEST):
        assert await SqlCasefiles(reads).access(user_id, newest)
        costs[user_id] = [reads.taken()]
        assert len(await SqlCasefiles(reads).casefiles_of(user_id, NOW, None, None, FEW)) == FEW
        costs[user_id].append(reads.taken())
        await SqlSessions(reads).sessions_seen_by(user_id, NOW, SessionFilter(casefile_id=newest), None, PAGE)
        costs[user_id].append(reads.taken())

    assert costs[OWNER] == costs[GUEST]


async def test_things_cost_the_same_however_many_others_there_are(database: str, tmp_path: Path):
    here, there = Topic("casefile", "cf_260301_abc123"), Topic("casefile", "cf_260301_ffffff")
    reads, costs = Explained(database), list[list[tuple[int, int]]]()
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        for others in (0, LONG):
            await storage.commits.commit(Commit(records=_things(2 * PAGE, here)))
            await storage.commits.commit(Commit(records=_things(others, there)))
            costs.append([])
            for state in (None, "asked"):
                page = await SqlThings(reads).page("parking_permit", here, state, None, PAGE)
                assert len(page) == PAGE
                assert await SqlThings(reads).page("parking_permit", here, state, page[-1].place, PAGE)
                costs[-1].append(reads.taken())
            for kind in (None, "parking_permit"):
                assert len(await SqlThings(reads).due(kind, NOW, PAGE)) == PAGE
                costs[-1].append(reads.taken())

    assert costs[0] == costs[1] == [(2, 2 * PAGE), (2, 2 * PAGE), (1, PAGE), (1, PAGE)]


def _things(number: int, about: Topic) -> list[Put]:
    """Things of two ages; the first ten are due and of one state, the others of another."""
    return [
        Put(
            Thing(
                kind="parking_permit",
                id=f"{about.id}_{n}",
                about=about,
                state="asked" if n < 2 * PAGE else "given",
                due_at=NOW if n < 2 * PAGE else NOW + timedelta(days=1) if n % 2 else None,
                created_at=NOW + timedelta(seconds=n % 2),
                updated_at=NOW,
                body={},
            )
        )
        for n in range(number)
    ]
