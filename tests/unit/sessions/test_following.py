"""Followers of a session: when they read, in which order things come, and when they end."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.casefile import RemoveGrant
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.grants import FreshGrants, StoredGrants
from casekeeper.errors import StoreUnavailable
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit, PermissionChanged
from casekeeper.journal.events import Fact, Kind, Payload, StoredFact
from casekeeper.journal.feed import Delta, LiveFeed, Watch
from casekeeper.paging import Cursors
from casekeeper.sessions.following import PAGE, Following, Polling
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose, SessionContext
from casekeeper.sessions.reading import EventPage, Reading
from casekeeper.sessions.session import Visibility
from casekeeper.sessions.streamed import StreamedDelta, StreamedFact
from casekeeper.storage.sql.casefiles import SqlCasefiles
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.identities import SqlIdentities
from casekeeper.storage.sql.sessions import SqlSessions
from casekeeper.storage.sql.statements import Reads, Tx
from tests.unit.support import ANNA, BEN, House

T = TypeVar("T")

LONG = timedelta(seconds=60)
SOON_S = 5.0


class Counting:
    """A store's reads, counted."""

    def __init__(self, behind: Reads) -> None:
        self._behind = behind
        self.count = 0

    async def point(self, read: Callable[[Tx], T]) -> T:
        self.count += 1
        return await self._behind.point(read)

    async def scan(self, read: Callable[[Tx], T]) -> T:
        self.count += 1
        return await self._behind.scan(read)


@dataclass
class Place:
    """A session that everybody of its casefile may read, and somebody who does."""

    house: House
    context: SessionContext
    owner: Any

    @property
    def session_id(self) -> str:
        return self.context.session.session_id

    def fact(self, kind: Kind, of: Fact | None = None) -> Fact:
        """A fact of an operation, a new one unless it is named."""
        now = self.house.clock()
        values: dict[str, Any] = {"event_id": of.event_id if of else new_event_id(now)}
        return Fact(
            casefile_id=self.context.session.casefile_id,
            session_id=self.session_id,
            kind=kind,
            actor="usr_1",
            operation_type="tool",
            operation_name="echo",
            started_at=now,
            ended_at=None if of is None else now,
            payload=Payload.of(b"{}"),
            **values,
        )

    async def commit(self, *facts: Fact) -> None:
        """Put these facts on record."""
        await self.house.storage.commits.commit(Commit(facts))

    async def started(self) -> Fact:
        """An operation that has started."""
        fact = self.fact(Kind.STARTED)
        await self.commit(fact)
        return fact

    async def ended(self, fact: Fact) -> None:
        """It has ended."""
        await self.commit(self.fact(Kind.SUCCEEDED, fact))

    def tell(self, fact: Fact, data: Any) -> None:
        """The operation makes progress."""
        self.house.live.delta(self.session_id, Delta(fact.event_id, data))

    def following(
        self,
        after: int = 0,
        *,
        heartbeat: timedelta = LONG,
        watched: Watch | None = None,
        until: Callable[[], bool] | None = None,
    ) -> AbstractAsyncContextManager[AsyncGenerator[Any]]:
        """A follower."""
        return aclosing(self.house.reading.follow(self.context, after, heartbeat, watched, until))

    def untold(
        self, heartbeat: timedelta, watched: Watch | None = None, until: Callable[[], bool] | None = None
    ) -> AbstractAsyncContextManager[AsyncGenerator[Any]]:
        """A follower whom nobody tells of facts, as in another process."""
        following = Following(self.read, self.house.manager, LiveFeed())
        return aclosing(following.follow(self.context, 0, heartbeat, watched, until))

    async def read(self, session_id: str, after: int) -> Sequence[StoredFact]:
        """The session's next facts."""
        wanted = EventPage(view="journal", limit=PAGE)
        return await self.house.storage.events.facts(session_id, wanted, after, PAGE)


@pytest.fixture
async def place(house: House) -> Place:
    """A session of Anna's that Ben may read."""
    await house.account(BEN)
    anna = await house.caller(ANNA)
    casefile_id = (await house.casefile(anna)).casefile_id
    await house.grant(anna, casefile_id, BEN, Role.VIEWER)
    session_id = await house.session(await house.caller(ANNA, casefile_id), casefile_id, Visibility.CASEFILE)
    ben = await house.caller(BEN, casefile_id)
    context = await house.manager.validate_and_get_session(ben, At(session_id), Purpose.READ)
    return Place(house, context, anna)


def shown(item: Any) -> Any:
    """An item in a word."""
    match item:
        case StreamedFact():
            return str(item.kind)
        case StreamedDelta():
            return item.data
        case _:
            return type(item).__name__ if item is not None else None


async def take(stream: AsyncGenerator[Any], count: int) -> list[Any]:
    """The next items."""
    async with asyncio.timeout(SOON_S):
        return [shown(await anext(stream)) for _ in range(count)]


async def rest(stream: AsyncGenerator[Any]) -> list[Any]:
    """All items until the stream ends."""
    async with asyncio.timeout(SOON_S):
        return [shown(item) async for item in stream]


# When the store is read


async def test_a_thousand_pieces_of_progress_cost_no_read(place: Place):
    house = place.house
    reads: Any = house.storage.commits
    counting = Counting(reads)
    freshness = Freshness(SqlIdentities(counting), house.clock, monotonic=house.clock.monotonic)
    stored = StoredGrants(SqlCasefiles(counting), house.clock)
    gate = Gate(
        FreshGrants(stored, freshness, house.clock), house.storage.casefiles, house.commits, house.clock
    )
    manager = CasefileSessionManager(SqlSessions(counting), gate, house.clock, LONG)
    reading = Reading(SqlEvents(counting), manager, gate, house.live, Cursors(b"s" * 32), house.clock)

    async with aclosing(reading.follow(place.context, 0, LONG)) as stream:
        await take(stream, 1)
        running = await place.started()
        assert await take(stream, 1) == ["started"]
        before = counting.count
        for number in range(1_000):
            place.tell(running, number)
            assert await take(stream, 1) == [number]
        during = counting.count - before
        await place.ended(running)
        assert await take(stream, 1) == ["succeeded"]

    assert during == 0
    # Three facts that came one by one, the names of those who made them, and one look at the permission.
    assert counting.count <= 10


async def test_a_fact_that_nobody_announced_comes_with_the_heartbeat(place: Place):
    async with place.untold(timedelta(milliseconds=50)) as stream:
        await take(stream, 1)
        await place.started()

        assert await take(stream, 2) == [None, "started"]


async def test_what_wakes_everybody_all_the_time_puts_off_no_heartbeat(place: Place):
    async def wake() -> None:
        while True:
            place.house.live.wake()
            await asyncio.sleep(0.005)

    async with place.following(heartbeat=timedelta(milliseconds=50)) as stream:
        await take(stream, 1)
        waking = asyncio.create_task(wake())
        assert await take(stream, 2) == [None, None]
        waking.cancel()


# Order


async def test_progress_comes_behind_its_start_and_before_its_end(place: Place):
    one, other = place.fact(Kind.STARTED), place.fact(Kind.STARTED)
    async with place.following() as stream:
        await take(stream, 1)
        # All of it before the follower has a turn.
        await place.commit(one)
        place.tell(one, "one")
        await place.commit(place.fact(Kind.SUCCEEDED, one), other)
        place.tell(other, "other")

        items = await take(stream, 5)

    assert items == ["started", "one", "succeeded", "started", "other"]


async def test_progress_of_what_has_ended_is_left_out(place: Place):
    running = await place.started()
    async with place.following() as stream:
        await take(stream, 2)
        await place.ended(running)
        await take(stream, 1)
        place.tell(running, "late")
        await place.started()

        assert await take(stream, 1) == ["started"]


async def test_progress_that_comes_while_the_store_is_read_waits_for_its_start(place: Place):
    house, meanwhile = place.house, list[Callable[[], Any]]()

    async def read(session_id: str, after: int) -> Sequence[StoredFact]:
        rows = await place.read(session_id, after)
        if meanwhile:
            # As if this were written behind the snapshot that was read.
            await meanwhile.pop()()
        return rows

    async def begin() -> None:
        running = await place.started()
        place.tell(running, "early")

    following = Following(read, house.manager, house.live)
    async with aclosing(following.follow(place.context, 0, LONG, None, None)) as stream:
        await take(stream, 1)
        meanwhile.append(begin)
        await place.started()

        items = await take(stream, 3)

    assert items == ["started", "started", "early"]


async def test_progress_waits_until_a_follower_has_caught_up(place: Place):
    running = place.fact(Kind.STARTED)
    old = [place.fact(Kind.DENIED) for _ in range(2 * PAGE)]
    await place.commit(*old[:PAGE], running, *old[PAGE:])
    watch = Watch()
    watch.push(Delta(running.event_id, "progress"))
    async with place.following(watched=watch) as stream:
        items = await take(stream, 2 * PAGE + 3)

    assert items.index("progress") > items.index("started")
    assert items.count("denied") == 2 * PAGE


# The end


async def test_nothing_comes_once_a_revoke_was_answered(place: Place):
    running = await place.started()
    async with place.following() as stream:
        await take(stream, 2)
        place.tell(running, "before")
        assert await take(stream, 1) == ["before"]
        await place.house.revoke(place.owner, place.context.session.casefile_id, BEN)
        place.tell(running, "after")
        await place.ended(running)

        assert await rest(stream) == ["StreamedRefusal"]


async def test_a_stream_ends_with_its_casefile(place: Place):
    async with place.following() as stream:
        await take(stream, 1)
        await place.house.delete(place.owner, place.context.session.casefile_id)
        place.house.live.wake()

        assert await rest(stream) == ["StreamedRefusal"]


async def test_a_caller_ends_a_stream_when_nothing_is_left_to_send(place: Place):
    is_over = False
    with place.house.live.watch(place.session_id) as watch:
        async with place.following(watched=watch, until=lambda: is_over) as stream:
            assert await take(stream, 1) == ["opened"]
            running = await place.started()
            place.tell(running, "waits")
            assert await take(stream, 2) == ["started", "waits"]
            await place.ended(running)
            is_over = True
            watch.wake()

            assert await rest(stream) == ["succeeded"]


async def test_a_stream_that_is_over_from_the_start_sends_what_there_is(place: Place):
    await place.started()

    async with place.following(until=lambda: True) as stream:
        assert await rest(stream) == ["opened", "started"]


async def test_what_was_written_before_it_was_over_is_sent_though_nobody_told(place: Place):
    is_over, watch = False, Watch()
    async with place.untold(LONG, watch, lambda: is_over) as stream:
        await take(stream, 1)
        await place.started()
        is_over = True
        watch.wake()

        assert await rest(stream) == ["started"]


# Other processes


class Told:
    """Where sessions stand, as it was told."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.asked: list[Collection[str]] = []
        self.is_away = False

    async def heads(self, session_ids: Collection[str]) -> Mapping[str, int]:
        self.asked.append(sorted(session_ids))
        if self.is_away:
            raise StoreUnavailable
        return {one: seq for one, seq in self.known.items() if one in session_ids}


async def test_one_look_for_all_followers_wakes_those_who_have_not_read():
    live, told = LiveFeed(), Told()
    polling = Polling(told, live, timedelta(milliseconds=10)).looking
    async with polling.running():
        await asyncio.sleep(0.05)
        assert told.asked == []
        await followed(live, told)
        await asyncio.sleep(0.05)
        asked = len(told.asked)
        await asyncio.sleep(0.05)
        assert len(told.asked) == asked


async def followed(live: LiveFeed, told: Told) -> None:
    with live.watch("a") as first, live.watch("a") as second, live.watch("b") as third:
        first.seen = second.seen = 3
        second.seen, told.known = 4, {"a": 4, "b": 0, "c": 9}

        async with asyncio.timeout(SOON_S):
            while not first.has_news:
                await first.woken(SOON_S)

        assert (first.has_news, second.has_news, third.has_news) == (True, False, False)
        told.is_away = True
        await asyncio.sleep(0.05)
        told.is_away, told.known = False, {"b": 1}
        async with asyncio.timeout(SOON_S):
            while not third.has_news:
                await third.woken(SOON_S)
        assert set(map(tuple, told.asked)) == {("a", "b")}


async def test_with_each_look_followers_ask_whether_they_still_may_read(place: Place):
    polling = Polling(Told(), place.house.live, timedelta(milliseconds=10)).looking
    async with polling.running(), place.following() as stream:
        await take(stream, 1)
        # As another process does, of whose change nobody here is told until the lease on the feed has run out.
        change = PermissionChanged(place.context.session.casefile_id, BEN, Kind.REVOKED, place.house.clock())
        gone = RemoveGrant(place.context.session.casefile_id, BEN)
        await place.house.storage.commits.commit(Commit(records=(gone, change)))
        place.house.clock.elapse(1)

        assert await rest(stream) == ["StreamedRefusal"]


async def test_a_proof_is_renewed_without_reading_the_session(place: Place):
    again = await place.house.manager.still(place.context)

    assert replace(again.access, checked_at=place.context.access.checked_at, source="x") == replace(
        place.context.access, source="x"
    )
    assert again.session == place.context.session
