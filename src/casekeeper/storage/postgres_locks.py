"""Which locks a transaction takes, so that it is judged and numbered as if nobody else wrote.

Whoever adds facts to a session has the session alone and shares its casefile with others that do so elsewhere in it:
several processes work in one casefile at once. Likewise for a thing. Whoever changes anything else of a casefile has it
alone.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

from casekeeper.casefiles.casefile import CasefileIsActive, Fence
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.commits import Commit, Condition, PermissionChanged, Record
from casekeeper.journal.operations import CloseOperation, OpenOperation, OperationIsOpen
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.journal.things import Drop, IsAt, Put
from casekeeper.sessions.session import SessionIsOpen

_OF_THINGS = (IsAt, Put, Drop)
# What looks at a casefile, or writes nothing but one thing of it, or what belongs to one session, whose facts come along.
_BESIDE_OTHERS = (
    CasefileIsActive,
    Fence,
    SessionIsOpen,
    OperationIsOpen,
    OpenOperation,
    CloseOperation,
    Claim,
    ReleaseClaim,
    *_OF_THINGS,
)
# Where a record keeps what it writes.
_HOLDERS = ("casefile", "grant", "session", "document", "upload", "row")


class Locks:
    """The locks that some commits want."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        self._alone: dict[str, bool] = {}
        self._changes = self._fenced = False
        for commit in commits:
            for fact in commit.facts:
                self._want(f"casefile {fact.casefile_id}", alone=False)
                self._want(f"session {fact.session_id}", alone=True)
            for part in (*commit.conditions, *commit.records):
                self._add(part)

    @property
    def advisory(self) -> list[tuple[int, bool]]:
        """The advisory locks in the order in which everybody takes them, each with whether it is taken alone."""
        return sorted((lock_number(key), alone) for key, alone in self._alone.items())

    @property
    def head(self) -> Literal["UPDATE", "SHARE", ""]:
        """How to lock the head of the feed, for those who take it first (`sql_feed`).

        The strongest lock at once, because to share it and want it alone later is how deadlocks begin; so it is for
        the advisory locks.
        """
        return "UPDATE" if self._changes else "SHARE" if self._fenced else ""

    def _want(self, key: str, *, alone: bool) -> None:
        self._alone[key] = alone or self._alone.get(key, False)

    def _add(self, part: Condition | Record) -> None:
        self._changes = self._changes or isinstance(part, PermissionChanged)
        self._fenced = self._fenced or isinstance(part, Fence | AccountStands)
        alone = not isinstance(part, _BESIDE_OTHERS)
        for one in (part, *(getattr(part, name, None) for name in _HOLDERS)):
            if casefile_id := getattr(one, "casefile_id", None):
                self._want(f"casefile {casefile_id}", alone=alone)
            if session_id := getattr(one, "session_id", None):
                self._want(f"session {session_id}", alone=True)
        if isinstance(part, _OF_THINGS):
            kind, id_ = part.name
            self._want(f"thing {kind} {id_}", alone=True)
        if key := getattr(part, "key", None):
            self._want(f"claim {key}", alone=True)
        if type(part).__module__.startswith("casekeeper.identity"):
            stored = getattr(part, "stored", None)
            for name in ("user_id", "family", "digest", "key_id"):
                if named := getattr(part, name, None):
                    self._want(f"{name} {named}", alone=True)
            if stored is not None:
                self._want(f"user_id {stored.account.user_id}", alone=True)


def lock_number(key: str) -> int:
    """The advisory lock that stands for something."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
