"""Looking up permissions: in the caller's token, in this worker's cache, in the store."""

from datetime import UTC, datetime
from typing import Literal, Protocol

from casekeeper.acl import Role
from casekeeper.acl_feed import Scope
from casekeeper.casefiles.casefile import CasefileStore, PublicRole
from casekeeper.casefiles.freshness import Freshness
from casekeeper.clock import Clock
from casekeeper.errors import TokenRejected
from casekeeper.identity.principal import Principal
from casekeeper.values import value

Source = Literal["token", "worker", "store"]
"""Where a permission was found: in the caller's token, in this worker's memory of an earlier read, in the store."""

# Some three megabytes.
_REMEMBERED_MAX = 10_000


@value
class FoundGrant:
    """A permission and where it was read.

    Attributes:
        role: None for a public reader.
        ends_at: When the grant ends; None if it has no end.
        user_changed: The account's newest user-wide change at `asof`: older tokens have ended.
        tags: The casefile's; a token knows none.
    """

    role: Role | None
    source: Source
    asof: int
    ends_at: datetime | None = None
    user_changed: int = 0
    tags: frozenset[str] = frozenset()


@value
class _Remembered:
    """What the store said of one user in one casefile."""

    user_id: str
    epoch: str
    asof: int
    role: Role
    ends_at: datetime | None
    user_changed: int
    tags: frozenset[str]


class Grants(Protocol):
    """Where permissions are looked up."""

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> FoundGrant | None:
        """The caller's permission now; None if there is none, or no such casefile.

        `again`: not from a cache, whose answer was overtaken.
        """
        ...


class StoredGrants:
    """Reads the store."""

    def __init__(self, store: CasefileStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> FoundGrant | None:
        """The stored permission; an expired grant is none.

        Raises:
            TokenRejected: Something ended the caller's tokens meanwhile: what is read now is not for this one.
        """
        stored = await self._store.access(caller.user_id, casefile_id)
        if stored is None:
            return None
        if stored.user_changed > caller.asof:
            raise TokenRejected("The account has changed since this access token was made; log in again.")
        if stored.grant and stored.grant.is_live(self._clock()):
            return FoundGrant(
                stored.grant.role,
                "store",
                stored.asof,
                stored.grant.expires_at,
                stored.user_changed,
                stored.tags,
            )
        if stored.public_role is not PublicRole.NONE:
            return FoundGrant(None, "store", stored.asof, tags=stored.tags)
        return None


class FreshGrants:
    """Believes the token's scopes, or what an earlier read found, while they provably cannot be stale."""

    def __init__(
        self,
        behind: Grants,
        freshness: Freshness,
        clock: Clock,
        *,
        with_tags: bool = False,
        remembered_max: int = _REMEMBERED_MAX,
    ) -> None:
        """`with_tags`: the casefile's tags are needed as well, which no token carries."""
        self._with_tags = with_tags
        self._behind = behind
        self._freshness = freshness
        self._clock = clock
        self._remembered_max = remembered_max
        self._remembered: dict[tuple[str, str], _Remembered] = {}
        self._counters = freshness.counters

    async def find(self, caller: Principal, casefile_id: str, *, again: bool = False) -> FoundGrant | None:
        """The permission, from a cache if it can be believed. "No grant" is never remembered.

        Raises:
            StoreUnavailable: No cache can be believed and the store cannot be read.
        """
        counters = self._counters
        counters.checks += 1
        if not again and (cached := await self._cached(caller, casefile_id)):
            return cached
        # Before the read: what is remembered must not look newer than what was read.
        epoch = self._freshness.epoch
        counters.store += 1
        found = await self._behind.find(caller, casefile_id)
        self._remember(caller.user_id, casefile_id, epoch, found)
        return found

    async def _cached(self, caller: Principal, casefile_id: str) -> FoundGrant | None:
        known = await self._known(caller, casefile_id) if self._with_tags else None
        scope = caller.scopes.get(casefile_id)
        # Ends are judged last: a check may wait for a poll meanwhile.
        if (
            scope
            and (known or not self._with_tags)
            and await self._freshness.believes(caller, casefile_id)
            and self._is_live(_end_of(scope))
        ):
            caller.touch(casefile_id)
            self._counters.token += 1
            if known is None:
                return FoundGrant(scope.role, "token", caller.asof, _end_of(scope))
            # Role and tags hold together as of the older of the two.
            asof = min(caller.asof, known.asof)
            return FoundGrant(scope.role, "token", asof, _end_of(scope), tags=known.tags)
        if known or (known := await self._known(caller, casefile_id)):
            self._counters.worker += 1
            return FoundGrant(known.role, "worker", known.asof, known.ends_at, tags=known.tags)
        return None

    async def _known(self, caller: Principal, casefile_id: str) -> _Remembered | None:
        """What an earlier read found, if it can be believed."""
        known = self._remembered.get((caller.user_id, casefile_id))
        # It may have been read for a newer token, after something that ended this one.
        if (
            known
            and known.user_changed <= caller.asof
            and await self._freshness.believes(known, casefile_id)
            and self._is_live(known.ends_at)
        ):
            return known
        return None

    def _is_live(self, ends_at: datetime | None) -> bool:
        return ends_at is None or self._clock() < ends_at

    def _remember(self, user_id: str, casefile_id: str, epoch: str, found: FoundGrant | None) -> None:
        remembered, key = self._remembered, (user_id, casefile_id)
        if found is None or found.role is None:
            remembered.pop(key, None)
            return
        known = _Remembered(
            user_id, epoch, found.asof, found.role, found.ends_at, found.user_changed, found.tags
        )
        if key not in remembered and len(remembered) >= self._remembered_max:
            del remembered[next(iter(remembered))]
        remembered[key] = known


def _end_of(scope: Scope) -> datetime | None:
    return None if scope.not_after is None else datetime.fromtimestamp(scope.not_after, UTC)
