"""What every store promises about operations that wait: who has them, when they are due, what becomes of words that cross."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casekeeper.clock import from_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact
from casekeeper.journal.operations import (
    AT_ONCE,
    NOBODY,
    Held,
    OperationEnded,
    OperationTakenOver,
    Snapshot,
    WaitingFor,
)
from tests.contract.shelf import NOW, Shelf
from tests.contract.waiting import (
    HELD,
    ME,
    OTHER,
    ask_to_stop,
    end,
    opened_one,
    park,
    row_of,
    running,
    second,
    take_over,
    waiting,
    wake,
)

pytestmark = pytest.mark.timeout(60)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.timedeltas(timedelta(), timedelta(days=400))
INSTANTS = st.integers(0, 2**56).map(from_us)
WAITED_FOR = st.builds(
    WaitingFor,
    st.sampled_from(["approval", "answer", "signal", "time", "person", "operation"]),
    st.none() | TEXTS,
    st.none() | INSTANTS,
)
ALL_THAT_IS_HELD = st.builds(
    Held,
    depth=st.integers(0, 8),
    left=TIMES,
    waited=TIMES,
    since=st.none() | INSTANTS,
    is_tainted=st.booleans(),
    crashes=st.integers(0, 20),
    waiting_for=st.lists(WAITED_FOR, max_size=3).map(tuple),
    snapshot=st.none() | st.builds(Snapshot, st.integers(1, 9), st.none() | TEXTS, st.none() | TEXTS),
)


# Who has it


async def test_what_runs_is_owned_by_its_process_and_its_attempt(shelf: Shelf):
    fact = await running(shelf)

    await shelf.commit(end(shelf, fact))

    assert await shelf.storage.events.opened([fact.event_id]) == []


@pytest.mark.parametrize(("owner", "attempt"), [(OTHER, 1), (ME, 2), (NOBODY, 1)])
async def test_who_does_not_have_it_ends_nothing(shelf: Shelf, owner: str, attempt: int):
    fact = await running(shelf)

    with pytest.raises(OperationTakenOver):
        await shelf.commit(end(shelf, fact, owner, attempt))

    assert (await row_of(shelf, fact)).owner == ME
    assert len(await shelf.storage.events.operation(fact.event_id)) == 1


async def test_what_has_ended_is_owned_by_nobody_any_more(shelf: Shelf):
    fact = await running(shelf)
    await shelf.commit(end(shelf, fact))

    with pytest.raises(OperationEnded) as refusal:
        await shelf.commit(end(shelf, fact))

    assert type(refusal.value) is OperationEnded


# Parking


async def test_what_parks_belongs_to_nobody_until_its_time(shelf: Shelf):
    fact = await running(shelf)

    await shelf.commit(park(fact, until=60))

    row = await row_of(shelf, fact)
    assert (row.owner, row.state, row.attempt, row.wake_at) == (NOBODY, "waiting", 1, second(60))
    # It leaves no fact.
    assert len(await shelf.storage.events.operation(fact.event_id)) == 1


async def test_what_is_held_of_it_survives_in_full(shelf: Shelf):
    held = Held(
        depth=3,
        left=timedelta(microseconds=1),
        waited=timedelta(days=3, microseconds=7),
        since=NOW,
        is_tainted=True,
        crashes=2,
        waiting_for=(
            WaitingFor("approval", "apr_1", second(60)),
            WaitingFor("time"),
            WaitingFor("person", "ä€𝄞"),
        ),
        snapshot=Snapshot(4, '{"nul":"\\u0000","text":"' + "€" * 10_000 + '"}'),
    )

    fact = await waiting(shelf, held=held)

    assert (await row_of(shelf, fact)).held == held


@given(held=ALL_THAT_IS_HELD)
def test_what_is_held_is_the_same_once_written_and_read(held: Held):
    assert Held.of_text(held.to_text()) == held


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(held=ALL_THAT_IS_HELD)
async def test_whatever_is_held_comes_back_from_the_store(shelf: Shelf, held: Held):
    fact = await waiting(shelf, held=held)

    assert (await row_of(shelf, fact)).held == held


async def test_what_waits_can_wait_on_for_longer(shelf: Shelf):
    fact = await waiting(shelf, until=10)

    await shelf.commit(park(fact, NOBODY, until=60))

    assert (await row_of(shelf, fact)).wake_at == second(60)


# Waking


async def test_a_word_that_comes_before_it_parks_survives_the_parking(shelf: Shelf):
    fact = await running(shelf)

    await shelf.commit(wake(fact, 5))
    woken = await row_of(shelf, fact)
    await shelf.commit(park(fact))

    assert (woken.owner, woken.wake_at) == (ME, second(5))
    assert (await row_of(shelf, fact)).wake_at == second(5)


@pytest.mark.parametrize(("woken_at", "until"), [(5, 60), (60, 5)])
async def test_what_was_woken_before_it_parked_is_due_at_the_earlier_time(
    shelf: Shelf, woken_at: int, until: int
):
    fact = await running(shelf)
    await shelf.commit(wake(fact, woken_at))

    await shelf.commit(park(fact, until=until))

    assert (await row_of(shelf, fact)).wake_at == second(5)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "waiting"])
async def test_of_two_times_the_earlier_counts(shelf: Shelf, is_running: bool):
    fact = await (running if is_running else waiting)(shelf)

    for at in (30, 5, 60):
        await shelf.commit(wake(fact, at))

    assert (await row_of(shelf, fact)).wake_at == second(5)


async def test_waking_what_has_ended_does_nothing(shelf: Shelf):
    fact = await shelf.operation()

    await shelf.commit(wake(fact, 5))

    assert await shelf.storage.events.opened([fact.event_id]) == []
    assert await shelf.storage.events.due(10) == []


# Taking up


async def test_what_is_taken_up_runs_by_the_next_attempt(shelf: Shelf):
    fact = await waiting(shelf, until=5)
    held = Held(depth=0, left=timedelta(seconds=7), waited=timedelta(hours=1), is_tainted=True, crashes=3)

    await shelf.commit(take_over(fact, OTHER, held=held))

    row = await row_of(shelf, fact)
    assert (row.owner, row.state, row.attempt, row.wake_at) == (OTHER, "running", 2, None)
    assert row.held == held
    await shelf.commit(end(shelf, fact, OTHER, 2))


async def test_of_two_that_take_it_up_the_second_is_too_late(shelf: Shelf):
    fact = await waiting(shelf)
    await shelf.commit(take_over(fact, ME))

    with pytest.raises(OperationTakenOver):
        await shelf.commit(take_over(fact, OTHER))

    assert (await row_of(shelf, fact)).owner == ME


async def test_a_former_attempt_of_the_same_process_starts_and_ends_nothing(shelf: Shelf):
    fact = await waiting(shelf)
    await shelf.commit(take_over(fact, ME))
    child = shelf.opening(shelf.started("child", fact), owner=ME)
    before = end(shelf, fact, ME, 1).conditions

    for late in (Commit(child.facts, (*child.conditions, *before), child.records), end(shelf, fact, ME, 1)):
        with pytest.raises(OperationTakenOver):
            await shelf.commit(late)


# Stopping


async def test_what_runs_is_asked_to_stop_and_keeps_its_time(shelf: Shelf):
    fact = await running(shelf)
    await shelf.commit(wake(fact, 60))

    await shelf.commit(ask_to_stop(fact))

    asked = await opened_one(shelf, fact)
    assert (asked.stop, asked.row.wake_at) == ("Enough.", second(60))


@pytest.mark.parametrize("until", [None, 60])
async def test_what_was_asked_to_stop_before_it_parked_is_due_at_once(shelf: Shelf, until: int | None):
    fact = await running(shelf)
    await shelf.commit(ask_to_stop(fact))

    await shelf.commit(park(fact, until=until))

    assert (await row_of(shelf, fact)).wake_at == AT_ONCE
    assert await shelf.storage.events.asked_to_stop(ME) == []


@pytest.mark.parametrize("until", [None, 60])
async def test_what_waits_is_due_at_once_when_it_is_asked_to_stop(shelf: Shelf, until: int | None):
    fact = await waiting(shelf, until=until)

    await shelf.commit(ask_to_stop(fact))

    asked = await opened_one(shelf, fact)
    assert (asked.stop, asked.row.wake_at) == ("Enough.", AT_ONCE)


# What opens and ends it


async def test_what_it_was_admitted_under_stays_with_it(shelf: Shelf):
    fact = shelf.started()
    await shelf.commit(shelf.opening(fact, owner=ME, is_tainted=True, is_approved=True, held=HELD))
    await shelf.commit(park(fact))
    await shelf.commit(take_over(fact))

    row = await row_of(shelf, fact)

    assert (row.is_tainted, row.is_approved) == (True, True)


async def test_what_waits_keeps_its_session_busy_until_it_is_ended(shelf: Shelf):
    fact = await waiting(shelf)
    open_before = await shelf.storage.events.open_operations(shelf.session_id)

    await shelf.commit(end(shelf, fact, NOBODY))

    assert [one.row.event_id for one in open_before] == [fact.event_id]
    assert await shelf.storage.events.open_operations(shelf.session_id) == []
    assert (await shelf.check()).findings == ()


async def test_the_end_of_what_waited_tells_it_apart_from_its_work_and_verifies(shelf: Shelf):
    fact = await waiting(shelf)
    ending = end(shelf, fact, NOBODY)
    hour_ms, waited_ms = 3_600_000, 3_000_000

    await shelf.commit(replace(ending, facts=(replace(ending.facts[0], waited_ms=waited_ms),)))

    [_, ended] = await shelf.storage.events.operation(fact.event_id)
    header = json.loads(ended.header)
    [total] = await shelf.storage.sessions.totals(shelf.session_id)
    assert (header["duration_ms"], header["waited_ms"]) == (hour_ms, waited_ms)
    assert total.busy_ms == hour_ms - waited_ms
    assert (await shelf.check()).exit_code == 0


async def test_an_operation_is_found_with_where_its_inputs_are(shelf: Shelf):
    fact = shelf.started(body="asked", request_id="r")
    [sealed] = await shelf.commit(shelf.opening(fact, owner=ME, held=HELD))

    opened = await opened_one(shelf, fact)

    assert (opened.started_seq, opened.inputs_commit) == (sealed.seq, fact.payload.commit.hex())
    assert opened.row == shelf.opening(fact, owner=ME, held=HELD).records[0]


async def test_those_that_are_open_are_found_among_those_that_are_not(shelf: Shelf):
    there: list[Fact] = [await running(shelf), await waiting(shelf)]
    ended = await shelf.operation()
    events = shelf.storage.events

    found = await events.opened([ended.event_id, *(fact.event_id for fact in there), "evt_none"])

    assert {one.row.event_id for one in found} == {fact.event_id for fact in there}
    assert await events.opened([]) == []
