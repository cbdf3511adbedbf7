"""Safe repeats: a `request_id` is claimed in the commit that does the work, and never runs twice (SPEC §3).

What is kept is the id of what the call made, so a replay answers the present state; answers, tokens and secrets
are never stored. Key = hash(user, route, request id), at the top level of the store: the session may not exist yet.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from casekeeper.clock import Clock
from casekeeper.errors import RequestIdReused
from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.values import value

T = TypeVar("T")

KEPT = timedelta(hours=24)
"""How long a claim outlives the end of the operation."""


class AlreadyClaimed(Superseded):
    """The same request came first."""


@value
class Ask:
    """A request as idempotency sees it. One whose id the server made cannot be repeated, so nothing is claimed.

    `within`: the operation that asks, and the key by which it names this call. Such a claim is kept as long as the record,
    since the operation may go on at any time.
    """

    user_id: str
    route: str
    request_id: str
    body: bytes = b""
    is_repeatable: bool = False
    within: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """Under which the claim is stored."""
        if self.within is not None:
            return hashlib.sha256("\n".join(("within", *self.within)).encode()).hexdigest()
        return hashlib.sha256("\n".join((self.user_id, self.route, self.request_id)).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Tells whether a repeat asks for the same."""
        return hashlib.sha256(self.body).hexdigest()


@value
class Claim(Record, Condition):
    """The claim itself: refused where one exists that has not expired, written otherwise."""

    key: str
    fingerprint: str
    made: str
    now: datetime
    expires_at: datetime | None

    @property
    def about(self) -> Sequence[About]:
        return (About("claim", self.key, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return AlreadyClaimed(self.key) if found else None


@value
class ReleaseClaim(Record):
    """Starts the 24 hours of an operation's claim; goes with its terminal fact."""

    made: str
    expires_at: datetime

    @property
    def about(self) -> Sequence[About]:
        # A live claim is written by nobody but the end of its operation, whose fact has the session alone.
        return ()


class Claims(Protocol):
    """Claims as a store keeps them."""

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        """Fingerprint and made id of a live claim."""
        ...


class Requests:
    """Runs a call once per request id and answers its repeats from what it made."""

    def __init__(self, claims: Claims, clock: Clock) -> None:
        self._claims = claims
        self._clock = clock

    async def find(self, ask: Ask) -> str | None:
        """The id that an earlier same request made.

        Raises:
            RequestIdReused: The earlier request asked for something else.
        """
        if not ask.is_repeatable:
            return None
        found = await self._claims.claimed(ask.key, self._clock())
        if found is None:
            return None
        fingerprint, made = found
        if fingerprint != ask.fingerprint:
            raise RequestIdReused
        return made

    def claim(self, ask: Ask, made: str, *, is_operation: bool = False) -> tuple[Claim, ...]:
        """What to add to the commit's conditions and records; an operation's claim lasts until it ends, and on."""
        if not ask.is_repeatable:
            return ()
        now = self._clock()
        return (Claim(ask.key, ask.fingerprint, made, now, None if is_operation else now + KEPT),)

    async def once(
        self, ask: Ask, make: Callable[[], Awaitable[T]], again: Callable[[str], Awaitable[T]]
    ) -> tuple[T, bool]:
        """`make()` the first time, `again(id)` for a repeat; the flag says that it was a repeat.

        `make` must put `claim(ask, …)` into its commit; losing that race turns into a repeat.
        """
        if made := await self.find(ask):
            return await again(made), True
        try:
            return await make(), False
        except AlreadyClaimed:
            made = await self.find(ask)
            if made is None:
                raise
            return await again(made), True
