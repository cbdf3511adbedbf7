"""What looking after open operations costs, however many wait: counted in rows and steps, never in time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.journal.operations import AT_ONCE, NOBODY
from casekeeper.storage.opening import open_storage
from casekeeper.storage.postgres.presence import OWNERS
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.statements import Reads
from tests.contract.explained import Explained, Stepped
from tests.contract.shelf import GUEST, NOW, OWNER, Shelf
from tests.contract.waiting import ME, ask_to_stop, running, waiting

pytestmark = pytest.mark.timeout(180)

FEW, MANY = 20, 2_000
PAGE = 5
ELSEWHERE = "cf_260301_ffffff"

Costs = dict[str, Any]


async def session_elsewhere(shelf: Shelf) -> str:
    """A session of another casefile."""
    await shelf.casefile(ELSEWHERE)
    return (await shelf.session(casefile_id=ELSEWHERE)).session_id


async def with_waiting(shelf: Shelf, session_id: str, number: int) -> None:
    """So many of another user's wait in that session, half of them due at the same time."""
    started = [shelf.started(session_id=session_id, casefile_id=ELSEWHERE) for _ in range(number)]
    commits = (
        shelf.opening(
            fact,
            owner=NOBODY,
            state="waiting",
            user_id=GUEST,
            wake_at=AT_ONCE if place % 2 else NOW + timedelta(seconds=place),
        )
        for place, fact in enumerate(started)
    )
    await asyncio.gather(*(shelf.commit(commit) for commit in commits))


async def begun(shelf: Shelf) -> str:
    """Three operations run, one of them asked to stop, and two wait; returns the id of one of them."""
    facts = [await running(shelf) for _ in range(3)]
    await shelf.commit(ask_to_stop(facts[0]))
    for _ in range(2):
        await waiting(shelf)
    # Behind the last row of an index there is none to look at, which is a step less: this one is never the last.
    return min(fact.event_id for fact in facts)


async def costs(shelf: Shelf, event_id: str, reads: Reads, taken: Callable[[], Any]) -> Costs:
    """What each read of what `begun` has begun costs."""
    events = SqlEvents(reads)
    looks: Mapping[str, tuple[Callable[[], Awaitable[Any]], int]] = {
        "due": (lambda: events.due(PAGE), PAGE),
        "orphans": (lambda: events.orphans("another", PAGE), 3),
        "running of": (lambda: events.running_of([ME], PAGE), 3),
        "asked to stop": (lambda: events.asked_to_stop(ME), 1),
        "of a casefile": (lambda: events.open_of(shelf.casefile_id, None), 5),
        "of a user": (lambda: events.open_of(None, OWNER), 5),
        "of both": (lambda: events.open_of(shelf.casefile_id, OWNER), 5),
        "of a session": (lambda: events.open_operations(shelf.session_id), 5),
        "one": (lambda: events.opened([event_id]), 1),
        "a casefile's, of one who has none": (lambda: events.open_of(shelf.casefile_id, GUEST), 0),
    }
    found: Costs = {}
    for name, (look, number) in looks.items():
        assert len(await look()) == number, name
        found[name] = taken()
    return found


async def test_on_sqlite_what_waits_costs_the_others_nothing(tmp_path: Path):
    found: dict[int, Costs] = {}
    async with open_storage("", tmp_path, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        elsewhere, event_id = await session_elsewhere(shelf), await begun(shelf)
        reads = Stepped(tmp_path / "casekeeper.db")
        # The very same rows are read both times: how random ids happen to stand would count as well.
        for number, more in ((FEW, FEW), (MANY, MANY - FEW)):
            await with_waiting(shelf, elsewhere, more)
            found[number] = await costs(shelf, event_id, reads, reads.taken)

    assert found[MANY] == found[FEW]


async def test_on_postgresql_what_waits_costs_the_others_nothing(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        await with_waiting(shelf, await session_elsewhere(shelf), MANY)
        event_id = await begun(shelf)
        reads = Explained(database)
        found = await costs(shelf, event_id, reads, reads.taken)
        await reads.scan(lambda tx: tx.text(OWNERS, ("another",)))
        found["owners"] = reads.taken()

    statements = {name: taken[0] for name, taken in found.items()}
    rows = {name: taken[1] for name, taken in found.items()}
    assert set(statements.values()) == {1}
    # Of what waits the part that is asked for, and all that runs, which is little.
    assert rows == {
        "due": PAGE,
        "orphans": 3,
        "owners": 3,
        "running of": 3,
        "asked to stop": 3,
        "of a casefile": 5,
        "of a user": 5,
        "of both": 5,
        "of a session": 5,
        "one": 1,
        "a casefile's, of one who has none": 3,
    }
