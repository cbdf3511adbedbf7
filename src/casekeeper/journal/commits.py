"""The one write path: a `Commit` of facts, conditions and records, atomic in every store (SPEC §8).

Rooms declare their conditions and records as small dataclasses; a store knows how to look up what a condition
asks and how to write a record. The rule itself (when is what was found a refusal?) stays with the condition.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from casekeeper.journal.events import Fact, Sealed
from casekeeper.values import value


class Superseded(Exception):
    """Something newer was committed first. Nothing was written; look again and decide anew."""


class IdTaken(Superseded):
    """A freshly drawn id exists already: draw another."""


class Condition:
    """What must hold for a commit, judged inside its transaction before numbering."""

    __slots__ = ()

    def refusal(self, found: Any) -> Exception | None:
        """Why the commit may not be, given what the store found; None if it may."""
        raise NotImplementedError


class Record:
    """A side record that a room writes together with its facts."""

    __slots__ = ()


@value
class Commit:
    """Facts, conditions and records that become durable together or not at all."""

    facts: Sequence[Fact] = ()
    conditions: Sequence[Condition] = ()
    records: Sequence[Record] = ()


class Commits(Protocol):
    """Where commits go."""

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """Make the commit durable; returns its facts with their numbers, in the order given.

        When it returns the commit is on disk. Facts of one session get consecutive numbers in commit order. A
        caller that is cancelled while waiting does not undo the commit.

        Raises:
            Superseded: A condition lost a race; nothing was written.
            Refused: A condition refuses for good; nothing was written.
            StoreUnavailable: Nothing was acknowledged; whether it was written is unknown only if the store says so.
        """
        ...


@value
class PermissionChanged(Record):
    """Takes the next number of the permission feed for this change, under the feed's row lock."""

    casefile_id: str
    user_id: str
    kind: str
    at: datetime


@value
class ForgetExpired(Record):
    """Removes what counted only until an instant that has passed: claims and refresh tokens."""

    now: datetime
