"""When a cached scope may be believed.

A token's scopes were read in one snapshot of the permission feed, numbered `asof`. This worker keeps, for each
(casefile, user), the number of the newest change. A scope stands if no change of that pair, of the whole casefile
or of the whole account is newer than `asof`.

Proof. Every permission change takes the next number of the feed in its own commit, under one row lock, so a change
that committed before a read of the head has a number no greater than the one read. `believes` first reads the head
and applies every change up to it. So at the time of the read, `changed` knows every committed change; if none of
them is newer than `asof`, the token's own snapshot already saw them all. What commits after the read and before
the operation starts is caught by the commit's `Fence`.

The price is one indexed read of one row a check. Tokens older than what this worker has seen of the feed, and
tokens of another epoch (a restored backup), are never believed.
"""

from casekeeper.acl_feed import ANY, AclFeed
from casekeeper.identity.principal import Principal

# Far more pairs than change within a token's life; past it the worker forgets, which only costs reads.
_PAIRS_KEPT = 100_000


class Freshness:
    """What this worker knows of the permission feed."""

    def __init__(self, feed: AclFeed, *, pairs_kept: int = _PAIRS_KEPT) -> None:
        self._feed = feed
        self._pairs_kept = pairs_kept
        self._epoch = ""
        self._applied = -1
        self._floor = -1
        self._changed: dict[tuple[str, str], int] = {}

    async def believes(self, caller: Principal, casefile_id: str) -> bool:
        """Whether the scope that the caller's token carries for the casefile is provably current."""
        await self._catch_up()
        if caller.epoch != self._epoch or caller.asof < self._floor:
            return False
        newest = max(
            self._changed.get((casefile_id, caller.user_id), 0),
            self._changed.get((casefile_id, ANY), 0),
            self._changed.get((ANY, caller.user_id), 0),
        )
        return newest <= caller.asof

    async def stands(self, user_id: str, epoch: str, asof: int) -> bool:
        """Whether no user-wide change (logout, deactivation, stolen key) is newer than the token."""
        await self._catch_up()
        if epoch != self._epoch:
            return False
        if asof < self._floor:
            return await self._feed.user_changed(user_id) <= asof
        return self._changed.get((ANY, user_id), 0) <= asof

    async def _catch_up(self) -> None:
        head = await self._feed.head()
        if head.epoch != self._epoch or len(self._changed) > self._pairs_kept:
            # What came before is not known here: older tokens take the slow path.
            self._epoch, self._floor, self._applied = head.epoch, head.number, head.number
            self._changed.clear()
        if head.number > self._applied:
            for change in await self._feed.changes(self._applied):
                pair = (change.casefile_id, change.user_id)
                self._changed[pair] = max(change.number, self._changed.get(pair, 0))
                self._applied = max(self._applied, change.number)
