"""Commits about open operations, as small as the contract needs them; times of waking are seconds past noon."""

from datetime import datetime, timedelta
from typing import Any

from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact
from casekeeper.journal.operations import (
    NOBODY,
    AskToStop,
    Held,
    OpenedOperation,
    OpenOperation,
    OperationIsOpen,
    OwnedBy,
    ParkOperation,
    TakeOver,
    Wake,
    operation_of,
)
from tests.contract.shelf import NOW, Shelf

HELD = Held(depth=0, left=timedelta(seconds=30))
ME, OTHER = "me", "other"


def second(number: int | None) -> datetime | None:
    """So many seconds past noon; None for None."""
    return None if number is None else NOW + timedelta(seconds=number)


def park(
    fact: Fact, owner: str = ME, attempt: int = 1, *, until: int | None = None, held: Held = HELD
) -> Commit:
    """Let what this attempt of this owner runs wait."""
    ref = operation_of(fact)
    return Commit((), (OwnedBy(ref, owner, attempt),), (ParkOperation(ref, held, second(until)),))


def take_over(fact: Fact, owner: str = ME, after: int = 1, *, held: Held = HELD) -> Commit:
    """Go on with what has waited since this attempt."""
    ref = operation_of(fact)
    return Commit((), (OwnedBy(ref, NOBODY, after),), (TakeOver(ref, owner, held),))


def wake(fact: Fact, at: int) -> Commit:
    """What it waits for may have come."""
    return Commit(records=(Wake(operation_of(fact), NOW + timedelta(seconds=at)),))


def ask_to_stop(fact: Fact, reason: str = "Enough.") -> Commit:
    """Somebody wants it to end."""
    ref = operation_of(fact)
    return Commit((), (OperationIsOpen(ref),), (AskToStop(ref, reason),))


def end(shelf: Shelf, fact: Fact, owner: str = ME, attempt: int = 1, *, seq: int = 2) -> Commit:
    """The end of what this attempt of this owner runs."""
    ending = shelf.ending(fact, seq)
    return Commit(ending.facts, (OwnedBy(operation_of(fact), owner, attempt),), ending.records)


async def opened_one(shelf: Shelf, fact: Fact) -> OpenedOperation:
    """The open operation; there must be one."""
    [one] = await shelf.storage.events.opened([fact.event_id])
    return one


async def row_of(shelf: Shelf, fact: Fact) -> OpenOperation:
    """Its row."""
    return (await opened_one(shelf, fact)).row


async def running(shelf: Shelf, name: str = "noop", *, owner: str = ME, **fields: Any) -> Fact:
    """A running operation."""
    fact = shelf.started(name, **fields)
    await shelf.commit(shelf.opening(fact, owner=owner))
    return fact


async def waiting(
    shelf: Shelf,
    name: str = "noop",
    *,
    owner: str = ME,
    until: int | None = None,
    held: Held = HELD,
    **fields: Any,
) -> Fact:
    """One that waits since its first attempt, which was this owner's."""
    fact = await running(shelf, name, owner=owner, **fields)
    await shelf.commit(park(fact, owner, until=until, held=held))
    return fact
