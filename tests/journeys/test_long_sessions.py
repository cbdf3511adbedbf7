"""A session of 10,000 operations behaves like one of ten. Counted in steps of the database, never in time."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from casekeeper.casefiles.casefile import Fence
from casekeeper.execution.facts import Asked, started_fact, terminal_fact
from casekeeper.execution.runner import Ending
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact, Kind, Payload, Sealed
from casekeeper.journal.operations import CloseOperation, OpenOperation, OperationIsOpen, operation_of
from casekeeper.journal.requests import KEPT, Claim, ReleaseClaim
from casekeeper.operations.operation import Finished
from casekeeper.server import Server
from casekeeper.sessions.manager import At, SessionContext
from casekeeper.sessions.reading import EventPage
from casekeeper.sessions.session import EndSession, SessionIsIdle, SessionIsOpen
from casekeeper.storage.sql.batch import Batch
from casekeeper.storage.sql.casefiles import SqlCasefiles
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.identities import SqlIdentities
from casekeeper.storage.sql.sessions import SqlSessions
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sqlite.transaction import SqliteTx
from tests.journeys.counted import Counted
from tests.support import NOON, Api, House, Json, open_test_server

T = TypeVar("T")

SHORT, LONG = 10, 10_000
# One row, or a list that came as a parameter: reading all of it is reading what was asked for.
_SMALL = ("acl_head", "json_each")
# What is sorted after it was found by a key, and does not grow with history: the caller's open auto sessions, what runs
# at the moment, the facts of one operation.
_FEW = ("sessions.auto = 1", "open_operations.session_id =", "events.event_id =")

pytestmark = pytest.mark.timeout(120)


class Site:
    """A server with a short and a long session, and the means to count."""

    def __init__(self, server: Server, api: Api, house: House, sessions: dict[int, str]) -> None:
        self.server, self.api, self.house, self.sessions = server, api, house, sessions
        self.path = server.settings.data / "casekeeper.db"

    async def context(self, session_id: str) -> SessionContext:
        """The proof of entry of the session's user."""
        caller = await self.server.identity.authenticator.authenticate(self.house["owner"])
        return await self.server.sessions.manager.validate_and_get_session(caller, At(session_id))

    async def ask(self, verb: str, size: int, **payload: object) -> Json:
        """A call about one of the sessions."""
        payload = {"session_id": self.sessions[size], **payload}
        return await self.api.ask(f"/v1/sessions/{verb}", payload, token=self.house["owner"])


@dataclass(frozen=True)
class Filled:
    """A data directory with both sessions in it, made once; tests work on copies."""

    data: Path
    casefile_id: str
    users: dict[str, str]
    sessions: dict[int, str]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return asyncio.run(_made(tmp_path_factory.mktemp("filled") / "data"))


async def _made(data: Path) -> Filled:
    async with open_test_server(data) as server, Api.of(server) as api:
        house = await api.house()
        # Neither is the last in an index by session: a search that ends there takes a step less.
        made = sorted([await api.session(house["owner"], house.casefile_id) for _ in range(4)])
        sessions = {SHORT: made[1], LONG: made[2]}
        site = Site(server, api, house, sessions)
        for size, session_id in sessions.items():
            await _fill(site, session_id, size)
    return Filled(data, house.casefile_id, house.users, sessions)


@pytest.fixture
async def site(tmp_path: Path, filled: Filled) -> AsyncGenerator[Site]:
    shutil.copytree(filled.data, tmp_path / "data")
    async with open_test_server(tmp_path / "data") as server, Api.of(server) as api:
        tokens = {who: await api.token(user_id) for who, user_id in filled.users.items()}
        yield Site(server, api, House(filled.casefile_id, filled.users, tokens), filled.sessions)


async def _fill(site: Site, session_id: str, operations: int) -> None:
    """Write operations as the executor does, many to a commit."""
    context, now = await site.context(session_id), site.server.clock()
    head = context.session.head
    assert head is not None
    seq = head.seq
    while operations:
        facts: list[Fact] = []
        for _ in range(min(operations, 250)):
            started, ended = _operation(context, now, seq + len(facts) + 1)
            facts += [started, ended]
        await site.server.storage.commits.commit(Commit(tuple(facts)))
        seq, operations = seq + len(facts), operations - len(facts) // 2


def _operation(context: SessionContext, now: datetime, seq: int) -> tuple[Fact, Fact]:
    asked = Asked("tool", "noop", {}, f"req-{seq}")
    payload = Payload.of(b'{"inputs":{}}')
    started = started_fact(context.access, context.session.session_id, asked, payload, now)
    ending = Ending(Kind.SUCCEEDED, finished=Finished({}))
    return started, terminal_fact(
        started,
        seq,
        ending,
        Payload.of(b'{"outputs":{}}'),
        now + timedelta(seconds=1),
        is_tainted=False,
        waited=timedelta(),
    )


async def _steps_of_reading(site: Site, size: int, counted: Counted) -> int:
    """What `get` and a close read, for a session of this size."""
    session_id, events = site.sessions[size], SqlEvents(counted)
    for order in ("asc", "desc"):
        for view in ("operations", "journal"):
            await events.facts(session_id, EventPage(view=view, order=order, limit=5), None, 6)
    await events.open_operations(session_id)
    await SqlSessions(counted).session(session_id)
    await SqlSessions(counted).totals(session_id)
    return counted.taken()


async def _middle(site: Site, size: int, counted: Counted) -> int:
    page = EventPage(limit=5)
    rows = await SqlEvents(counted).facts(site.sessions[size], page, size, 6)
    assert len(rows) == 6
    return counted.taken()


async def test_reading_a_long_session_takes_as_many_steps_as_a_short_one(site: Site) -> None:
    counted = Counted(site.path)

    short, long = [await _steps_of_reading(site, size, counted) for size in (SHORT, LONG)]

    # A range at the very end of an index ends a step earlier.
    assert abs(short - long) <= 2


async def test_a_page_in_the_middle_costs_what_the_first_one_costs(site: Site) -> None:
    counted = Counted(site.path)

    short, long = [await _middle(site, size, counted) for size in (SHORT, LONG)]

    assert short == long


async def test_nothing_on_the_way_reads_a_whole_table_or_sorts(site: Site) -> None:
    counted = Counted(site.path)
    house, now = site.house, site.server.clock()
    await _steps_of_reading(site, LONG, counted)
    await SqlIdentities(counted).head()
    await SqlIdentities(counted).claimed("key", now)
    await SqlIdentities(counted).snapshot(house.users["owner"], [house.casefile_id], 0)
    await SqlCasefiles(counted).access(house.users["owner"], house.casefile_id)
    await SqlSessions(counted).session(site.sessions[LONG])
    await SqlSessions(counted).auto_session(house.users["owner"], house.casefile_id, now)
    await SqlEvents(counted).operation(new_event_id(now))
    await SqlEvents(counted).record(site.sessions[LONG], 5_000, 10)

    plans = counted.plans()

    assert len(plans) > 20
    assert [line for line in plans if _reads_all(line)] == []


async def test_finding_the_auto_session_sorts_only_the_callers_own(site: Site) -> None:
    counted = Counted(site.path)
    first = await site.api.run(site.house["owner"], "noop", casefile_id=site.house.casefile_id)

    found = await SqlSessions(counted).auto_session(
        site.house.users["owner"], site.house.casefile_id, NOON - timedelta(days=3650)
    )

    assert found is not None
    assert found.session_id == first.json()["payload"]["session_id"]
    assert any("sessions_auto" in line for line in counted.plans())


def _reads_all(line: str) -> bool:
    plan = line.partition(" <- ")[0]
    if "TEMP B-TREE" in plan:
        return not any(few in line for few in _FEW)
    return plan.startswith("SCAN") and not any(name in plan for name in _SMALL)


@pytest.mark.parametrize("what", ["started", "ended", "closed"])
async def test_writing_to_a_long_session_takes_as_many_steps_as_to_a_short_one(site: Site, what: str) -> None:
    counted = Counted(site.path, read_only=False)
    commits = {size: await _commits(site, size) for size in (SHORT, LONG)}
    # A statement's very first run may take a step more than its later ones.
    _written(counted, commits[SHORT], what)

    steps = {size: _written(counted, commits[size], what) for size in (SHORT, LONG)}

    assert steps[SHORT] == steps[LONG]


def _written(counted: Counted, commits: dict[str, Commit], what: str) -> int:
    """The steps of one commit on top of those that must come before it; everything is undone again."""
    before = {"started": [], "ended": ["started"], "closed": []}[what]
    counted.connection.execute("BEGIN IMMEDIATE")
    try:
        for name in before:
            _write(SqliteTx(counted.connection), commits[name])
        counted.taken()
        counted.watch(lambda tx: _write(tx, commits[what]))
        return counted.taken()
    finally:
        counted.connection.execute("ROLLBACK")


def _write(tx: Tx, commit: Commit) -> Sequence[Sealed]:
    batch = Batch(tx)
    batch.prepare((commit,))
    sealed = batch.add(commit)
    batch.flush()
    return sealed


async def _commits(site: Site, size: int) -> dict[str, Commit]:
    """What the executor and a close would write into the session."""
    context, now = await site.context(site.sessions[size]), site.server.clock()
    session, access = context.session, context.access
    assert session.head is not None
    started, ended = _operation(context, now, session.head.seq + 1)
    # The two sessions' operations must not meet in an index, or their steps would depend on the order.
    fence = Fence(access.caller.user_id, access.casefile_id, access.asof)
    claim = Claim(f"key-{size}", "fingerprint", started.event_id, now, None)
    row = OpenOperation(
        event_id=started.event_id,
        casefile_id=started.casefile_id,
        session_id=started.session_id,
        parent_event_id=None,
        root_event_id=started.event_id,
        user_id=session.user_id,
        actor=started.actor,
        operation_type="tool",
        operation_name="noop",
        request_id=started.request_id,
        owner="somebody",
        started_at=now,
    )
    closed = replace(started, event_id=new_event_id(now), kind=Kind.CLOSED, operation_type=None)
    open_ = SessionIsOpen(session.session_id)
    return {
        "started": Commit((started,), (claim, fence, open_), (claim, row)),
        "ended": Commit(
            (ended,),
            (OperationIsOpen(operation_of(started)),),
            (CloseOperation(operation_of(started)), ReleaseClaim(started.event_id, now + KEPT)),
        ),
        "closed": Commit(
            (closed,),
            (fence, open_, SessionIsIdle(session.session_id)),
            (EndSession(session.session_id, now),),
        ),
    }


async def test_a_long_session_gives_its_newest_page_and_its_figures(site: Site) -> None:
    newest = await site.ask("get", LONG, events={"order": "desc", "limit": 3})
    closed = await site.ask("close", LONG)

    assert [event["seq"] for event in newest["events"]["items"]] == [20_001, 19_999, 19_997]
    assert newest["head"]["seq"] == 2 * LONG + 1
    assert closed["statistics"]["operations"] == {
        "total": LONG,
        "succeeded": LONG,
        "failed": 0,
        "denied": 0,
    }


async def test_a_walk_over_a_long_session_meets_each_operation_once(site: Site) -> None:
    seen: list[int] = []
    cursor = None
    for _ in range(LONG):
        events = {"limit": 200} | ({"cursor": cursor} if cursor else {})
        page = (await site.ask("get", LONG, events=events))["events"]
        seen += [event["seq"] for event in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == list(range(3, 2 * LONG + 2, 2))


def test_the_counter_counts() -> None:
    counted = Counted(Path(":memory:"), read_only=False)

    counted.watch(lambda tx: tx.text("SELECT value FROM json_each('[1,2,3]')"))
    few = counted.taken()
    counted.watch(lambda tx: tx.text("SELECT value FROM json_each('[1,2,3,4,5,6,7,8,9]')"))

    assert 0 < few < counted.taken()
