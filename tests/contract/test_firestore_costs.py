"""What reading costs in Firestore, counted in calls and in the documents that are paid for; never in time."""

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import DeleteCasefile, EraseContents, Status
from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.operations import NOBODY
from casekeeper.journal.things import IsAt, Put, Thing, Topic
from casekeeper.sessions.reading import EventPage
from casekeeper.sessions.session import SessionFilter
from tests.contract.conftest import Opening
from tests.contract.shelf import GUEST, LATER, NOW, OWNER, Shelf
from tests.contract.waiting import ME, running, waiting

pytestmark = [pytest.mark.timeout(120), pytest.mark.parametrize("opening", ["firestore"], indirect=True)]

SHORT, LONG = 10, 1_000
FEW, MANY = 3, 100
PAGE = 5
_HELD = {"found", "missing", "document"}


@dataclass
class Cost:
    """What was read meanwhile."""

    calls: int = 0
    documents: int = 0


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.cost = Cost()

    def emit(self, record: logging.LogRecord) -> None:
        answers: list[Any] | None = record.__dict__.get("answers")
        if answers is not None:
            self.cost.calls += 1
            # That there is none is paid for as one.
            self.cost.documents += sum(bool(_HELD & {f.name for f, _ in a.ListFields()}) for a in answers)


@contextmanager
def counted() -> Generator[Cost]:
    """Counts."""
    log, listener = logging.getLogger("casekeeper.firestore"), _Listener()
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    try:
        yield listener.cost
    finally:
        log.setLevel(level)
        log.removeHandler(listener)


async def test_a_session_costs_the_same_however_long_it_is(opening: Opening):
    async with opening() as storage:
        shelf = await Shelf.filled(storage)
        sessions = {SHORT: shelf.session_id, LONG: (await shelf.session()).session_id}
        for size, session_id in sessions.items():
            facts = [shelf.fact(Kind.DENIED, session_id) for _ in range(size - 1)]
            await asyncio.gather(*(shelf.commit(Commit((fact,))) for fact in facts))
    costs: dict[int, list[Cost]] = {}
    for size, session_id in sessions.items():
        # Opened anew: what one has written itself it remembers.
        async with opening() as storage:
            with counted() as got:
                session = await storage.sessions.session(session_id)
            with counted() as totals:
                await storage.sessions.totals(session_id)
            pages: list[Cost] = []
            for order in ("asc", "desc"):
                with counted() as paged:
                    wanted = EventPage.model_validate({"view": "journal", "order": order})
                    page = await storage.events.facts(session_id, wanted, None, PAGE)
                assert len(page) == PAGE
                pages.append(paged)
        assert session is not None
        assert session.head is not None
        assert session.head.seq == size
        costs[size] = [got, totals, *pages]

    assert costs[LONG] == costs[SHORT]
    # Where it is, itself and its casefile, and its newest fact.
    assert costs[LONG][0] == Cost(calls=3, documents=4)


async def in_many_casefiles(shelf: Shelf) -> None:
    """The owner is in many, the guest in the few newest of them; all but the oldest five are archived."""
    made = (
        shelf.casefile(
            f"cf_260301_{number:06x}",
            created_at=NOW + timedelta(seconds=number),
            status=Status.ACTIVE if number < PAGE else Status.ARCHIVED,
        )
        for number in range(MANY - 1)
    )
    await asyncio.gather(*made)
    for number in range(MANY - 1 - FEW, MANY - 1):
        await shelf.grant(GUEST, Role.VIEWER, casefile_id=f"cf_260301_{number:06x}")


async def test_what_is_read_of_casefiles_does_not_grow_with_their_number(opening: Opening):
    costs: dict[str, list[Cost]] = {}
    async with opening() as storage:
        shelf = await Shelf.filled(storage)
        await in_many_casefiles(shelf)
        for user_id in (OWNER, GUEST):
            newest = f"cf_260301_{MANY - 2:06x}"
            with counted() as accessed:
                assert await storage.casefiles.access(user_id, newest)
            with counted() as got:
                await storage.casefiles.casefile(newest)
            with counted() as listed:
                page = await storage.casefiles.casefiles_of(user_id, NOW, None, None, FEW)
            assert page[0][0].casefile_id == newest
            with counted() as behind:
                place = (to_us(page[-1][0].created_at), page[-1][0].casefile_id)
                await storage.casefiles.casefiles_of(user_id, NOW, None, place, FEW)
            with counted() as sessions:
                await storage.sessions.sessions_seen_by(
                    user_id, NOW, SessionFilter(casefile_id=newest), None, PAGE
                )
            costs[user_id] = [accessed, got, listed, behind, sessions]
        with counted() as active:
            page = await storage.casefiles.casefiles_of(OWNER, NOW, Status.ACTIVE, None, PAGE)
        assert len(page) == PAGE

    access, one = Cost(calls=1, documents=5), Cost(calls=1, documents=1)
    # Ten grants at least are asked for at a time, and their casefiles.
    page_of_many, page_of_few, nothing = Cost(2, 20), Cost(2, 2 * FEW), Cost(1, 0)
    assert costs == {
        OWNER: [access, one, page_of_many, page_of_many, Cost(3, 2)],
        # A viewer's sessions are his own and those that are shared.
        GUEST: [access, one, page_of_few, nothing, Cost(4, 2)],
    }
    # Those of another status are passed over, ever more at a time: all of them here, but in four rounds.
    assert active == Cost(2 * 4, 2 * MANY)


async def test_casefiles_that_are_gone_are_not_passed_over(opening: Opening):
    async with opening() as storage:
        shelf = await Shelf.filled(storage)
        for number in range(2 * PAGE):
            made = await shelf.casefile(f"cf_260301_{number:06x}", created_at=LATER)
            await shelf.commit(Commit(records=(DeleteCasefile(made.casefile_id, LATER),)))
            await shelf.commit(Commit(records=(EraseContents(made.casefile_id),)))
        with counted() as listed:
            page = await storage.casefiles.casefiles_of(OWNER, NOW, None, None, PAGE)

    assert [casefile.casefile_id for casefile, _ in page] == [shelf.casefile_id]
    assert listed == Cost(calls=2, documents=2)


async def test_things_cost_what_is_found_however_many_others_there_are(opening: Opening):
    here, there = Topic("casefile", "cf_260301_abc123"), Topic("casefile", "cf_260301_ffffff")
    thing = Thing(
        kind="parking_permit", id="", about=here, state="asked", created_at=NOW, updated_at=NOW, body={}
    )
    mine = [replace(thing, id=f"pp_{n}", due_at=NOW) for n in range(2 * PAGE)]
    others = [replace(thing, id=f"pq_{n}", about=there, due_at=LATER) for n in range(MANY)]
    async with opening() as storage:
        await storage.commits.commit(Commit(records=[*map(Put, mine), *map(Put, others)]))
        costs = list[Cost]()
        for state in (None, "asked"):
            for before in (None, mine[PAGE].place):
                with counted() as listed:
                    page = await storage.things.page("parking_permit", here, state, before, PAGE)
                assert len(page) == PAGE
                costs.append(listed)
        for kind in (None, "parking_permit"):
            with counted() as due:
                assert len(await storage.things.due(kind, NOW, PAGE)) == PAGE
            costs.append(due)
        with counted() as changed:
            versions = [one.changed(LATER) for one in mine]
            await storage.commits.commit(
                Commit((), [IsAt.before(one) for one in versions], [*map(Put, versions)])
            )

    assert costs == [Cost(calls=1, documents=PAGE)] * 6
    # What is relied on is read at once.
    assert changed == Cost(calls=1, documents=2 * PAGE)


async def test_what_waits_elsewhere_costs_those_who_look_after_operations_nothing(opening: Opening):
    costs: dict[int, list[Cost]] = {}
    async with opening() as storage:
        shelf, events = await Shelf.filled(storage), storage.events
        await shelf.casefile("cf_260301_ffffff")
        there = (await shelf.session(casefile_id="cf_260301_ffffff")).session_id
        mine = await running(shelf)
        await waiting(shelf)
        for number in (FEW, MANY):
            started = [shelf.started(session_id=there, casefile_id="cf_260301_ffffff") for _ in range(number)]
            opened = (
                shelf.opening(fact, owner=NOBODY, state="waiting", user_id=GUEST, wake_at=NOW)
                for fact in started
            )
            await asyncio.gather(*(shelf.commit(commit) for commit in opened))
            costs[number] = []
            for look in (
                events.due(FEW),
                events.open_of(shelf.casefile_id, None),
                events.open_of(None, OWNER),
                events.open_of(shelf.casefile_id, GUEST),
                events.asked_to_stop(ME),
                events.open_operations(shelf.session_id),
                events.opened([mine.event_id]),
            ):
                with counted() as looked:
                    await look
                costs[number].append(looked)

    assert costs[MANY] == costs[FEW]
    assert costs[MANY][:2] == [Cost(calls=1, documents=FEW), Cost(calls=2, documents=2)]
