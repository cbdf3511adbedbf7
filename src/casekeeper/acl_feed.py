"""The ordered numbers of permission changes, and what is asked of them.

Every change of who may do what takes the next number of one feed inside its own commit, under one row lock, so
number order is commit order (Zanzibar's zookie, USENIX ATC 2019). A token says up to which number its scopes are
true (`asof`); whoever knows the newer changes knows whether to believe it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from casekeeper.acl import Role
from casekeeper.values import value

ANY = "*"
"""Stands for every casefile, or every user, in a change."""


@value
class Scope:
    """A grant as a token carries it: the role, and until when (whole seconds since 1970; None = no end)."""

    role: Role
    not_after: int | None = None


@value
class Change:
    """One permission change. `user_id` may be `*` (public role, deletion), `casefile_id` may be `*` (the account)."""

    number: int
    casefile_id: str
    user_id: str


@value
class FeedHead:
    """The newest number, and the feed it belongs to: a restored backup starts a new epoch."""

    epoch: str
    number: int


@value
class AccessSnapshot:
    """All that a token needs, read in one snapshot: `asof` is true for every scope and for the account."""

    epoch: str
    asof: int
    user_changed: int
    scopes: Mapping[str, Scope]


class AclFeed(Protocol):
    """The feed as a store keeps it. Reads see every commit that was acknowledged before they began."""

    async def head(self) -> FeedHead:
        """The newest number: one indexed read."""
        ...

    async def changes(self, after: int) -> Sequence[Change]:
        """The changes with a higher number, in order."""
        ...

    async def number_before(self, instant_us: int) -> int:
        """The number of the newest change made before that instant (microseconds since 1970), 0 if there is none."""
        ...

    async def user_changed(self, user_id: str) -> int:
        """The number of the account's newest user-wide change, 0 if there was none."""
        ...

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        """The user's live grants on these casefiles with the numbers that go with them."""
        ...


class Pushes:
    """Tells listeners in this process of changes as they are committed, before the commit is answered.

    A hint that makes things quicker: whoever must know reads the feed.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[Sequence[Change]], None]] = []

    def listen(self, listener: Callable[[Sequence[Change]], None]) -> None:
        """Calls the listener with every change from now on."""
        self._listeners.append(listener)

    def __call__(self, changes: Sequence[Change]) -> None:
        for listener in self._listeners:
            listener(changes)


@value
class StopReport:
    """The operations that were stopped because their user lost a permission.

    Attributes:
        stopped: Operations that ran and have ended.
        waiting: Operations that waited and have ended.
        unconfirmed: Operations that have not ended yet, by the worker that runs them. They can do nothing any more:
            every step of theirs is refused, and the worker's own caches have run out.
    """

    stopped: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    unconfirmed: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


class Stops(Protocol):
    """Stops operations whose user has lost a permission."""

    async def stop(
        self, reason: str, *, casefile_id: str | None = None, user_id: str | None = None, waits: bool = True
    ) -> StopReport:
        """End what runs or waits for this user, in this casefile, or both.

        `waits`: until the change holds on every worker and what ran has ended, a second at most.
        """
        ...

    async def lowered(
        self, casefile_id: str, user_id: str, role: Role, tags: frozenset[str], *, waits: bool = True
    ) -> StopReport:
        """What becomes of the operations of this user that the new role does not cover; the others go on."""
        ...

    async def archived(self, casefile_id: str) -> None:
        """End what waits to change something in this casefile."""
        ...

    async def settle(self) -> None:
        """Wait until a change that was committed before this holds on every worker."""
        ...
