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


async def with_waiting(shelf: Shelf, number: int) -> None:
    """So many of another user's wait elsewhere, half of them due at the same time."""
    await shelf.casefile(ELSEWHERE)
    session_id = (await shelf.session(casefile_id=ELSEWHERE)).session_id
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


async def costs(shelf: Shelf, reads: Reads, taken: Callable[[], Any]) -> Costs:
    """What each read costs beside three operations that run, one of them asked to stop, and two that wait."""
    facts = [await running(shelf) for _ in range(3)]
    await shelf.commit(ask_to_stop(facts[0]))
    for _ in range(2):
        await waiting(shelf)
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
        "one": (lambda: events.opened([facts[0].event_id]), 1),
        "a casefile's, of one who has none": (lambda: events.open_of(shelf.casefile_id, GUEST), 0),
    }
    found: Costs = {}
    for name, (look, number) in looks.items():
        assert len(await look()) == number, name
        found[name] = taken()
    return found


async def test_on_sqlite_what_waits_costs_the_others_nothing(tmp_path: Path):
    found: dict[int, Costs] = {}
    for number in (FEW, MANY):
        directory = tmp_path / str(number)
        async with open_storage("", directory, lambda _: None) as storage:
            shelf = await Shelf.filled(storage)
            await with_waiting(shelf, number)
            reads = Stepped(directory / "casekeeper.db")
            found[number] = await costs(shelf, reads, reads.taken)

    # Ids are random, and sorting rows takes some steps more or less, depending on how they stand; reading one more takes 30.
    assert found[MANY] == pytest.approx(found[FEW], abs=10)  # pyright: ignore[reportUnknownMemberType]


async def test_on_postgresql_what_waits_costs_the_others_nothing(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        shelf = await Shelf.filled(storage)
        await with_waiting(shelf, MANY)
        reads = Explained(database)
        found = await costs(shelf, reads, reads.taken)
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
