"""Steps that tests of waiting operations share."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pydantic_core import from_json, to_json

from casekeeper.casefiles.casefile import CasefileView
from casekeeper.execution.facts import terminal_fact
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.runner import Ending
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind, Payload, fact_of
from casekeeper.journal.operations import CloseOperation, OpenedOperation, Wake
from casekeeper.journal.requests import Ask, Body
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


async def runs_elsewhere(house: House, around: OpenedOperation, name: str, key: str) -> Commit:
    """Let a call with a key run in a process that was taken for lost; returns its end, by which it wakes nobody."""
    row, [stored, *_] = around.row, await house.storage.events.operation(around.row.event_id)
    event_id = f"{row.event_id}x"
    fact = replace(
        fact_of(from_json(stored.header), Payload.of(b'{"inputs":{}}')),
        event_id=event_id,
        parent_event_id=row.event_id,
        operation_name=name,
    )
    inner = replace(row, event_id=event_id, parent_event_id=row.event_id, operation_name=name, held=None)
    inner = replace(inner, owner="elsewhere", state="running", wake_at=None)
    body = Body.of_json(to_json(["tool", name, {}]))
    ask = Ask(row.user_id, "nested", key, body, is_repeatable=True, within=(row.event_id, key))
    claim = house.requests.claim(ask, event_id, is_operation=True)
    [sealed] = await house.storage.commits.commit(Commit((fact,), claim, (*claim, inner)))
    payload, nothing = Payload.of(b'{"outputs":"sent"}'), timedelta()
    end = terminal_fact(
        fact, sealed.seq, Ending(Kind.SUCCEEDED), payload, house.clock(), is_tainted=False, waited=nothing
    )
    return Commit((end,), (inner.ownership,), (CloseOperation(inner.ref),))
