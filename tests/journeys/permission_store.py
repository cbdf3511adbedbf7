"""The model of a store of permissions: changes in the order of their commits, and what was true when."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from casekeeper.acl import Grant, Role
from casekeeper.acl_feed import ANY, AccessSnapshot, Change, Scope
from casekeeper.casefiles.casefile import PublicRole, StoredAccess
from tests.unit.support import NOW

EPOCH = "epoch"
CASEFILES = ("c1", "c2")
START = int(NOW.timestamp())


class Time(Protocol):
    """What tells the time."""

    now: float


@dataclass(slots=True)
class Held:
    """What a pair holds from an instant on."""

    role: Role | None
    ends_at: float | None = None

    def at(self, now: float) -> Role | None:
        """The role, unless its time is over."""
        return None if self.ends_at is not None and now >= self.ends_at else self.role


@dataclass(slots=True)
class History:
    """What was true when; the newest last."""

    times: list[float] = field(default_factory=lambda: [-1.0])
    held: list[Held] = field(default_factory=lambda: [Held(None)])

    def put(self, now: float, held: Held) -> None:
        """From now on."""
        self.times.append(now)
        self.held.append(held)

    def was(self, role: Role, since: float, now: float) -> bool:
        """Whether the role was held at some instant from `since` to now."""
        for index in range(len(self.times) - 1, -1, -1):
            begun = max(self.times[index], since)
            if self.held[index].at(begun) is role:
                return True
            if self.times[index] <= since:
                return False
        return False

    def lacked(self, since: float, now: float) -> bool:
        """Whether a read from `since` to now may have found nothing, or what has ended by now."""
        first = bisect_right(self.times, since) - 1
        return any(held.at(now) is None for held in self.held[first:])


@dataclass(slots=True)
class Pending:
    """A change on its way to its commit."""

    casefile_id: str
    user_id: str
    take_effect: Callable[[int], None]
    number: int | None = None


class Store:
    """Changes in the order of their commits, and what they made true."""

    def __init__(self, time: Time, *, numbers_before_commit: bool) -> None:
        self.time = time
        self.numbers_before_commit = numbers_before_commit
        self.number = self.drawn = 0
        self.rows: list[tuple[float, Change]] = []
        self.newest: dict[tuple[str, str], int] = {}
        self.grants: defaultdict[tuple[str, str], History] = defaultdict(History)
        self.public: defaultdict[str, History] = defaultdict(History)
        self.ended: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)

    def commit(self, pending: Pending) -> Change:
        """Make a change true, under the next number of the feed."""
        if pending.number is None:
            self.drawn += 1
            pending.number = self.drawn
        number = pending.number
        self.number = max(self.number, number)
        change = Change(number, pending.casefile_id, pending.user_id)
        self.rows.append((self.time.now, change))
        pair = (change.casefile_id, change.user_id)
        self.newest[pair] = max(number, self.newest.get(pair, 0))
        pending.take_effect(number)
        return change

    def newest_of(self, user_id: str, casefile_id: str) -> int:
        """The number that a fence is judged by."""
        pairs = ((casefile_id, user_id), (casefile_id, ANY), (ANY, user_id))
        return max(self.newest.get(pair, 0) for pair in pairs)

    def changes(self, after: int) -> list[Change]:
        """Those with a higher number, in order."""
        newer: list[Change] = []
        for _, change in reversed(self.rows):
            if change.number <= after:
                # Where numbers are commit order there is nothing further down.
                if not self.numbers_before_commit:
                    break
                continue
            newer.append(change)
        return sorted(newer, key=lambda change: change.number)

    def number_before(self, instant: float) -> int:
        """The newest number of before an instant."""
        return next((change.number for at, change in reversed(self.rows) if at < instant), 0)

    def access(self, user_id: str, casefile_id: str) -> StoredAccess:
        """A user's permission and the number of the same moment."""
        held = self.grants[casefile_id, user_id].held[-1]
        grant = None
        if held.role is not None:
            ends_at = None if held.ends_at is None else NOW + timedelta(seconds=held.ends_at)
            # As it was when it was granted; checking it anew would cost more than the code under test.
            grant = Grant.model_construct(
                casefile_id=casefile_id,
                user_id=user_id,
                role=held.role,
                expires_at=ends_at,
                granted_by="x",
                granted_at=NOW,
            )
        public = PublicRole.VIEWER if self.public[casefile_id].held[-1].role else PublicRole.NONE
        return StoredAccess(grant, public, self.number, self.newest.get((ANY, user_id), 0))

    def snapshot(self, user_id: str) -> AccessSnapshot:
        """What a token of this moment carries."""
        scopes: dict[str, Scope] = {}
        for casefile_id in CASEFILES:
            held = self.grants[casefile_id, user_id].held[-1]
            if role := held.at(self.time.now):
                scopes[casefile_id] = Scope(role, None if held.ends_at is None else int(held.ends_at + START))
        return AccessSnapshot(EPOCH, self.number, self.newest.get((ANY, user_id), 0), scopes)
