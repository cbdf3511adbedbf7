"""An operation's whole life in one transaction: each commit is judged by what those before it did."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact, Kind
from casekeeper.journal.operations import AT_ONCE, NOBODY, OwnedBy, operation_of
from casekeeper.sessions.session import SessionIsIdle
from tests.contract.shelf import Shelf
from tests.contract.waiting import ME, OTHER, ask_to_stop, end, park, second, take_over, waiting, wake

pytestmark = pytest.mark.timeout(60)

OK, ENDED, TAKEN_OVER, BUSY = "ok", "OperationEnded", "OperationTakenOver", "SessionBusy"

Step = Callable[[Shelf, Fact], Commit]


def opens(shelf: Shelf, fact: Fact) -> Commit:
    return shelf.opening(fact, owner=ME)


def parks(owner: str = ME, attempt: int = 1, until: int | None = None) -> Step:
    return lambda shelf, fact: park(fact, owner, attempt, until=until)


def is_taken(owner: str, after: int = 1) -> Step:
    return lambda shelf, fact: take_over(fact, owner, after)


def ends(owner: str, attempt: int = 1) -> Step:
    return lambda shelf, fact: end(shelf, fact, owner, attempt)


def is_woken(at: int) -> Step:
    return lambda shelf, fact: wake(fact, at)


def is_asked(shelf: Shelf, fact: Fact) -> Commit:
    return ask_to_stop(fact)


def is_idle(shelf: Shelf, fact: Fact) -> Commit:
    return Commit((shelf.fact(Kind.CLOSED),), (SessionIsIdle(fact.session_id),))


def calls(owner: str, attempt: int = 1) -> Step:
    """Something begins inside it."""

    def call(shelf: Shelf, fact: Fact) -> Commit:
        child = shelf.opening(shelf.started("child", fact), owner=owner)
        around = OwnedBy(operation_of(fact), owner, attempt)
        return Commit(child.facts, (*child.conditions, around), child.records)

    return call


STORIES: dict[str, list[tuple[Step, str]]] = {
    "a whole life": [(opens, OK), (parks(), OK), (is_taken(OTHER), OK), (ends(OTHER, 2), OK)],
    "a late end": [(opens, OK), (parks(), OK), (ends(ME), TAKEN_OVER), (is_taken(ME), OK), (ends(ME, 2), OK)],
    "two takers": [
        (opens, OK),
        (parks(), OK),
        (is_taken(ME), OK),
        (is_taken(OTHER), TAKEN_OVER),
        (ends(ME, 2), OK),
    ],
    "an end twice": [(opens, OK), (ends(ME), OK), (ends(ME), ENDED), (parks(), ENDED)],
    "words for the dead": [
        (opens, OK),
        (ends(ME), OK),
        (is_woken(5), OK),
        (is_asked, ENDED),
        (is_taken(ME), ENDED),
    ],
    "ended while it waits": [(opens, OK), (parks(), OK), (is_idle, BUSY), (ends(NOBODY), OK), (is_idle, OK)],
    "a call too late": [(opens, OK), (parks(), OK), (calls(ME), TAKEN_OVER), (ends(NOBODY), OK)],
    "a call of the wrong attempt": [
        (opens, OK),
        (parks(), OK),
        (is_taken(ME), OK),
        (calls(ME), TAKEN_OVER),
        (ends(ME, 2), OK),
    ],
}
"""Steps of an operation that ends, with what becomes of each."""


async def told(shelf: Shelf, commits: Sequence[Commit]) -> list[str]:
    """What becomes of commits that are asked for at once: they share a transaction, in this order."""
    answers = await asyncio.gather(*(shelf.commit(one) for one in commits), return_exceptions=True)
    return [type(one).__name__ if isinstance(one, BaseException) else OK for one in answers]


@pytest.mark.parametrize("story", STORIES)
async def test_a_life_in_one_transaction_is_what_it_would_be_in_many(shelf: Shelf, story: str):
    fact = shelf.started()

    answers = await told(shelf, [step(shelf, fact) for step, _ in STORIES[story]])

    assert answers == [expected for _, expected in STORIES[story]]
    assert await shelf.storage.events.opened([fact.event_id]) == []
    assert len(await shelf.storage.events.operation(fact.event_id)) == 2
    assert (await shelf.check()).findings == ()


async def test_what_was_opened_before_is_taken_up_parked_and_ended_in_one_transaction(shelf: Shelf):
    fact = await waiting(shelf)
    steps = [is_taken(ME), parks(ME, 2), parks(ME, 2), is_taken(OTHER, 2), ends(ME, 2), ends(OTHER, 3)]

    answers = await told(shelf, [step(shelf, fact) for step in steps])

    assert answers == [OK, OK, TAKEN_OVER, OK, TAKEN_OVER, OK]
    assert await shelf.storage.events.opened([fact.event_id]) == []


WAITS: dict[str, tuple[list[Step], object]] = {
    "woken before": ([opens, is_woken(5), parks()], second(5)),
    "woken before, for later": ([opens, is_woken(60), parks(until=5)], second(5)),
    "woken after": ([opens, parks(until=60), is_woken(5)], second(5)),
    "woken after, for later": ([opens, parks(until=5), is_woken(60)], second(5)),
    "asked before": ([opens, is_asked, parks(until=60)], AT_ONCE),
    "asked after": ([opens, parks(), is_asked], AT_ONCE),
    "woken in a former attempt": ([opens, is_woken(5), parks(), is_taken(ME), parks(ME, 2)], None),
}
"""Steps of an operation that waits in the end, and when it is due."""


@pytest.mark.parametrize("story", WAITS)
async def test_words_that_cross_in_one_transaction_are_not_lost(shelf: Shelf, story: str):
    fact = shelf.started()
    steps, due_at = WAITS[story]

    answers = await told(shelf, [step(shelf, fact) for step in steps])

    [opened] = await shelf.storage.events.opened([fact.event_id])
    assert set(answers) == {OK}
    assert (opened.row.owner, opened.row.wake_at) == (NOBODY, due_at)


async def test_a_refused_commit_moves_nothing_of_the_operation(shelf: Shelf):
    fact = shelf.started()
    late = [parks(OTHER), is_taken(OTHER), ends(OTHER), parks(ME, 2)]

    answers = await told(shelf, [opens(shelf, fact), *(step(shelf, fact) for step in late)])

    [opened] = await shelf.storage.events.opened([fact.event_id])
    assert answers == [OK, *[TAKEN_OVER] * 4]
    assert (opened.row.owner, opened.row.attempt, opened.row.wake_at) == (ME, 1, None)
