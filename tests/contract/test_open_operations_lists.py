"""What every store promises about lists of open operations: what runs without a process, what is due, what is where."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.operations import (
    NOBODY,
    AskToStop,
    OpenedOperation,
    OperationEnded,
    OperationIsOpen,
    operation_of,
)
from tests.contract.shelf import GUEST, NOW, OWNER, Shelf
from tests.contract.waiting import (
    ME,
    OTHER,
    ask_to_stop,
    end,
    park,
    running,
    second,
    take_over,
    waiting,
    wake,
)

pytestmark = pytest.mark.timeout(60)

ELSEWHERE = "cf_260301_ffffff"


def names(found: Sequence[OpenedOperation]) -> list[str]:
    return [one.row.operation_name for one in found]


# Those without a process


async def test_what_waits_is_no_orphan(shelf: Shelf):
    await waiting(shelf, "waits", owner="gone")
    await waiting(shelf, "is due", owner="gone", until=-5)
    await running(shelf, "runs", owner="gone")

    assert names(await shelf.storage.events.orphans(ME, 10)) == ["runs"]


async def test_what_was_handed_on_is_an_orphan_no_more_and_one_again_when_its_next_process_is_lost(
    shelf: Shelf,
):
    fact = await running(shelf, owner="gone")
    await shelf.commit(park(fact, "gone", until=0))
    handed_on = await shelf.storage.events.orphans(ME, 10)

    await shelf.commit(take_over(fact, "gone too"))

    assert handed_on == []
    [orphan] = await shelf.storage.events.orphans(ME, 10)
    assert (orphan.row.owner, orphan.row.attempt) == ("gone too", 2)


# What is due


async def test_what_has_a_time_is_listed_by_it(shelf: Shelf):
    for name, until in (("third", 30), ("never", None), ("first", -5), ("second", 0)):
        await waiting(shelf, name, until=until)
    woken_already = await running(shelf, "runs")
    await shelf.commit(wake(woken_already, -10))

    found = await shelf.storage.events.due(10)

    assert names(found) == ["first", "second", "third"]
    assert [one.row.wake_at for one in found] == [second(-5), second(0), second(30)]


async def test_only_so_many_are_listed_and_none_is_hidden_by_what_runs(shelf: Shelf):
    for number in range(4):
        await waiting(shelf, f"waits {number}", until=number)
        await shelf.commit(wake(await running(shelf, f"runs {number}"), -10))

    assert names(await shelf.storage.events.due(3)) == ["waits 0", "waits 1", "waits 2"]


async def test_what_was_taken_up_or_ended_is_not_due(shelf: Shelf):
    taken, ended = await waiting(shelf, until=0), await waiting(shelf, until=0)

    await shelf.commit(take_over(taken))
    await shelf.commit(end(shelf, ended, NOBODY))

    assert await shelf.storage.events.due(10) == []


# What is where


async def test_what_is_open_is_listed_by_casefile_by_user_and_by_both_what_waits_first(shelf: Shelf):
    await shelf.casefile(ELSEWHERE)
    there = (await shelf.session(casefile_id=ELSEWHERE)).session_id
    for number, (where, user_id) in enumerate((w, u) for w in ("here", "there") for u in (OWNER, GUEST)):
        place: dict[str, Any] = {} if where == "here" else {"session_id": there, "casefile_id": ELSEWHERE}
        for what, age in (("runs", 1), ("waits", 0), ("waits", 2)):
            at = second(10 * number - age)
            fact = shelf.started(f"{what} {where} {user_id[0]} {age}", started_at=at, **place)
            await shelf.commit(shelf.opening(fact, owner=ME, user_id=user_id))
            if what == "waits":
                await shelf.commit(park(fact))

    async def listed(casefile_id: str | None, user_id: str | None) -> list[str]:
        return names(await shelf.storage.events.open_of(casefile_id, user_id))

    def of(*places: str) -> list[str]:
        waits = [f"waits {place} {age}" for place in places for age in (2, 0)]
        return waits + [f"runs {place} 1" for place in places]

    assert await listed(ELSEWHERE, None) == of("there o", "there g")
    assert await listed(None, GUEST) == of("here g", "there g")
    assert await listed(ELSEWHERE, GUEST) == of("there g")
    assert await listed(None, None) == of("here o", "here g", "there o", "there g")
    assert await listed("cf_260301_eeeeee", GUEST) == []


@pytest.mark.timeout(180)
async def test_at_most_a_thousand_are_listed_what_waits_before_what_runs(shelf: Shelf):
    await running(shelf, "runs")
    commits: list[Commit] = []
    for number in range(1_001):
        at = NOW + timedelta(seconds=number)
        fact = shelf.started(f"{number:04}", started_at=at, event_id=new_event_id(at))
        commits.append(shelf.opening(fact, owner=NOBODY, state="waiting"))
    await asyncio.gather(*(shelf.commit(commit) for commit in commits))

    found = await shelf.storage.events.open_of(shelf.casefile_id, OWNER)

    assert names(found) == [f"{number:04}" for number in range(1_000)]


async def test_a_session_lists_what_runs_and_waits_in_it_oldest_first(shelf: Shelf):
    other = (await shelf.session()).session_id
    await waiting(shelf, "second", started_at=second(2))
    await running(shelf, "first", started_at=second(1))
    await running(shelf, "third", started_at=second(3))
    await waiting(shelf, "elsewhere", session_id=other)

    assert names(await shelf.storage.events.open_operations(shelf.session_id)) == ["first", "second", "third"]


async def test_what_is_open_inside_an_operation_is_listed_oldest_first(shelf: Shelf):
    around, other = await running(shelf, "around"), await waiting(shelf, "other")
    await waiting(shelf, "second", parent=around, started_at=second(2))
    await running(shelf, "first", owner=OTHER, parent=around, started_at=second(1))
    await running(shelf, "another's", parent=other)
    ended = await running(shelf, "ended", parent=around)
    await shelf.commit(end(shelf, ended))

    assert names(await shelf.storage.events.open_inside(around.event_id)) == ["first", "second"]
    assert names(await shelf.storage.events.open_inside("evt_none")) == []


# What was asked to stop


async def test_a_process_finds_only_what_it_runs_itself_asked_to_stop(shelf: Shelf):
    asked = [await running(shelf, owner=owner) for owner in (ME, OTHER)] + [await waiting(shelf)]
    await running(shelf)
    for fact in asked:
        await shelf.commit(ask_to_stop(fact))

    assert await shelf.storage.events.asked_to_stop(ME) == [(asked[0].event_id, "Enough.")]
    assert await shelf.storage.events.asked_to_stop(OTHER) == [(asked[1].event_id, "Enough.")]


async def test_what_was_asked_to_stop_while_it_waited_is_found_by_the_one_that_takes_it_up(shelf: Shelf):
    fact = await waiting(shelf)
    await shelf.commit(ask_to_stop(fact))

    await shelf.commit(take_over(fact, OTHER))

    assert await shelf.storage.events.asked_to_stop(OTHER) == [(fact.event_id, "Enough.")]


# What an operation has called


async def test_the_facts_of_what_an_operation_called_come_by_number(shelf: Shelf):
    around, other = await running(shelf, "around"), await running(shelf, "other")
    for name, kind in (("one", Kind.SUCCEEDED), ("two", Kind.FAILED)):
        await shelf.operation(name, kind, parent=around)
    inner = await running(shelf, "three", parent=around)
    await shelf.operation("too deep", parent=inner)
    await shelf.operation("another's", parent=other)

    children = await shelf.storage.events.children(around.event_id)

    headers = [json.loads(fact.header) for fact in children]
    assert [(h["operation_name"], h["kind"]) for h in headers] == [
        ("one", "started"),
        ("one", "succeeded"),
        ("two", "started"),
        ("two", "failed"),
        ("three", "started"),
    ]
    assert [fact.seq for fact in children] == sorted(fact.seq for fact in children)
    assert await shelf.storage.events.children("evt_none") == []


async def test_who_runs_an_operation_finds_that_it_was_asked_to_stop(shelf: Shelf):
    asked, other, theirs = (shelf.started(name) for name in ("asked", "other", "theirs"))
    for fact, owner in ((asked, "me"), (other, "me"), (theirs, "them")):
        await shelf.commit(shelf.opening(fact, owner=owner))

    for fact in (asked, theirs):
        stop = AskToStop(operation_of(fact), "Enough.")
        await shelf.commit(Commit((), (OperationIsOpen(operation_of(fact)),), (stop,)))

    assert await shelf.storage.events.asked_to_stop("me") == [(asked.event_id, "Enough.")]


async def test_what_has_ended_is_not_asked_to_stop(shelf: Shelf):
    fact = shelf.started()
    sealed = await shelf.commit(shelf.opening(fact, owner="me"))
    await shelf.commit(shelf.ending(fact, sealed[-1].seq, Kind.SUCCEEDED))
    stop = AskToStop(operation_of(fact), "Enough.")

    with pytest.raises(OperationEnded):
        await shelf.commit(Commit((), (OperationIsOpen(operation_of(fact)),), (stop,)))

    assert await shelf.storage.events.asked_to_stop("me") == []
