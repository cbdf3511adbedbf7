"""Steps that tests of waiting operations share."""

import asyncio
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from casekeeper.casefiles.casefile import CasefileView
from casekeeper.execution.outcomes import Outcome
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Payload, fact_of
from casekeeper.journal.operations import (
    Wake,
)
from casekeeper.sessions.manager import At
from tests.unit.support import House


async def parked(house: House, caller: Principal, casefile: CasefileView, tool: str, **more: Any) -> Outcome:
    outcome = await house.run(caller, At(casefile_id=casefile.casefile_id), tool, **more)
    assert outcome.status == "pending"
    return outcome


async def wake(house: House, event_id: str) -> None:
    """What it waits for has come."""
    row = await house.row(event_id)
    assert row is not None
    await house.commits.commit(Commit(records=(Wake(row.ref, house.clock()),)))


async def ended_kind(house: House, outcome: Outcome) -> tuple[str, str | None]:
    last = (await house.facts(outcome.session_id))[-1]
    assert last["event_id"] == outcome.event_id
    return last["kind"], last.get("error_type")


async def waiting_inside(house: House, casefile: CasefileView) -> str:
    async with asyncio.timeout(5):
        while True:
            found = await house.storage.events.open_of(casefile.casefile_id, None)
            for one in found:
                if one.row.parent and one.row.state == "waiting":
                    return one.row.event_id
            await asyncio.sleep(0.01)


async def until(is_so: Any) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)


async def copy_rows(house: House, event_id: str, copies: int) -> None:
    """Rows of further waiting operations, without the time that starting so many takes."""

    [opened] = await house.storage.events.opened([event_id])
    [stored] = await house.storage.events.operation(event_id)

    fact = fact_of(from_json(stored.header), Payload.of(b'{"inputs":{}}'))
    for number in range(copies):
        one = f"{event_id}x{number}"
        started = replace(fact, event_id=one)
        root = opened.row.root_event_id if opened.row.parent else one
        row = replace(opened.row, event_id=one, root_event_id=root)
        await house.storage.commits.commit(Commit((started,), (), (row,)))
