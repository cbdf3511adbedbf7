"""What every store promises about the tail: every fact of a casefile once, in the order of commits."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from casekeeper.acl import Role
from casekeeper.errors import PositionInvalid, PositionOfAnotherEpoch
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.tail import Position, Tail, TailFact
from casekeeper.storage.store import Storage
from tests.contract.conftest import Opening
from tests.contract.shelf import GUEST, NOW, Shelf

pytestmark = pytest.mark.timeout(120)

Place = tuple[str, int]
"""A fact: its session and its seq."""


async def walked(
    tail: Tail, casefile_id: str, after: Position | None = None, limit: int = 100
) -> tuple[list[TailFact], Position]:
    """All facts behind a position, page by page, and where they end."""
    found: list[TailFact] = []
    while True:
        page, position = await tail.read(casefile_id, after, limit)
        found += page
        if len(page) < limit:
            return found, position
        after = position


async def places(
    tail: Tail, casefile_id: str, after: Position | None = None, limit: int = 100
) -> list[Place]:
    """The facts behind a position."""
    found, _ = await walked(tail, casefile_id, after, limit)
    return [(one.fact.session_id, one.fact.seq) for one in found]


async def written(shelf: Shelf, session_id: str, count: int = 1) -> list[Place]:
    """Facts that are committed one after the other."""
    made: list[Place] = []
    for _ in range(count):
        [sealed] = await shelf.commit(Commit((shelf.fact(Kind.DENIED, session_id),)))
        made.append((session_id, sealed.seq))
    return made


async def test_facts_come_in_the_order_of_their_commits(shelf: Shelf):
    sessions = [(await shelf.session()).session_id for _ in range(3)]
    start = await shelf.storage.tail.end(shelf.casefile_id)

    made = [one for turn in range(12) for one in await written(shelf, sessions[turn % 3])]

    assert await places(shelf.storage.tail, shelf.casefile_id, start) == made
    everything = await places(shelf.storage.tail, shelf.casefile_id)
    assert everything == [(shelf.session_id, 1), *((session_id, 1) for session_id in sessions), *made]
