"""The one write path: a `Commit` of facts, conditions and records, atomic in every store (docs/decisions/0001).

Rooms declare their conditions and records as small dataclasses; a store knows how to look up what a condition
asks and how to write a record. The rule itself (when is what was found a refusal?) stays with the condition.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from casekeeper.acl_feed import ANY
from casekeeper.journal.events import Fact, Sealed
from casekeeper.values import value


class Superseded(Exception):
    """Something newer was committed first. Nothing was written; look again and decide anew."""


class IdTaken(Superseded):
    """A freshly drawn id exists already: draw another."""


AboutKind = Literal[
    "casefile", "session", "account", "claim", "key", "token", "family", "upload", "blob", "thing", "feed"
]


@value
class About:
    """Something that a condition looks at or a record writes, by its kind and id.

    `alone`: nobody else may look at it or write it in the meantime; otherwise others may do so beside it that do not
    want it alone. The feed of permission changes, of which there is one, has no id: those that are judged by it share
    it, and those that add to it have it alone.
    """

    kind: AboutKind
    id: str
    alone: bool


class Condition:
    """What must hold for a commit, judged inside its transaction before numbering."""

    __slots__ = ()

    @property
    def about(self) -> Sequence[About]:
        """What it looks at: nobody else writes that from its judgement until the commit is durable."""
        raise NotImplementedError

    def refusal(self, found: Any) -> Exception | None:
        """Why the commit may not be, given what the store found; None if it may."""
        raise NotImplementedError


class Record:
    """A side record that a room writes together with its facts."""

    __slots__ = ()

    @property
    def about(self) -> Sequence[About]:
        """What it writes. Which commits wait for each other, and in which order, follows from this alone."""
        raise NotImplementedError


@value
class Commit:
    """Facts, conditions and records that become durable together or not at all."""

    facts: Sequence[Fact] = ()
    conditions: Sequence[Condition] = ()
    records: Sequence[Record] = ()

    @property
    def about(self) -> Sequence[About]:
        """What its facts, then its conditions, then its records are about, each thing once, alone if one wants it so.

        A fact has its session alone and shares its casefile: several processes work in one casefile at the same time.
        """
        found: dict[tuple[str, str], About] = {}
        for fact in self.facts:
            found.setdefault(("casefile", fact.casefile_id), About("casefile", fact.casefile_id, alone=False))
            found.setdefault(("session", fact.session_id), About("session", fact.session_id, alone=True))
        for parts in (self.conditions, self.records):
            for part in parts:
                for one in part.about:
                    known = found.setdefault((one.kind, one.id), one)
                    if one.alone and not known.alone:
                        found[one.kind, one.id] = one
        return tuple(found.values())


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

    @property
    def about(self) -> Sequence[About]:
        changed = (
            About("account", self.user_id, alone=True)
            if self.casefile_id == ANY
            else About("casefile", self.casefile_id, alone=True)
        )
        return changed, About("feed", "", alone=True)


@value
class ForgetExpired(Record):
    """Removes what counted only until an instant that has passed: claims and refresh tokens."""

    now: datetime

    @property
    def about(self) -> Sequence[About]:
        # Of what has expired nothing is said or decided any more.
        return ()
