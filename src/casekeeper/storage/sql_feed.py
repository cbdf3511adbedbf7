"""The permission feed as one batch meets it: the fences that it is judged by, and the numbers of its own changes.

Who changes permissions, or starts something under one, holds the head of the feed until the commit: so numbers come in
the order of commits, and nothing starts beside a revoke that it did not see. That makes everybody wait for everybody, so
the head is taken last. Fences are judged without it first; once it is held, whatever was committed in between is held
against them again (docs/decisions/0016).
"""

import sys
from collections.abc import Sequence

from sqlalchemy import bindparam, func, insert, select, update

from casekeeper.acl_feed import ANY, Change
from casekeeper.casefiles.casefile import Fence
from casekeeper.clock import to_us
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.stream import Commit, PermissionChanged
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_statements import Bulk, Static, Tx

_NUMBER = Static(select(t.acl_head.c.number))
# One index, one short descent: of the pair, the whole casefile or the whole account.
_NEWEST_CHANGE = Static(
    select(func.coalesce(func.max(t.acl_feed.c.number), 0)).where(
        t.acl_feed.c.user_id == bindparam("user_id"), t.acl_feed.c.casefile_id == bindparam("casefile_id")
    )
)
_SINCE = Static(
    select(t.acl_feed.c.number, t.acl_feed.c.user_id, t.acl_feed.c.casefile_id).where(
        t.acl_feed.c.number > bindparam("after")
    )
)
_TAKE_NUMBERS = Static(
    update(t.acl_head).values(number=t.acl_head.c.number + bindparam("count")).returning(t.acl_head.c.number)
)
_ADD_CHANGES = Bulk([c.name for c in t.acl_feed.c], lambda rows: insert(t.acl_feed).values(rows))

Fenced = Fence | AccountStands
"""Conditions that ask for the newest change of somebody's permission."""


class Overtaken(Exception):
    """A fence that held when it was judged does not hold under the head of the feed: the batch must begin anew."""


class BatchFeed:
    """The feed within one transaction."""

    def __init__(self, tx: Tx, *, is_held: bool) -> None:
        """`is_held`: the head is held from the beginning, or nobody else writes: what was judged once stays true."""
        self._tx = tx
        self._is_held = is_held
        self._seen: int | None = None
        self._fences: list[Fenced] = []
        self._changes: list[PermissionChanged] = []

    def newest(self, fence: Fenced) -> int:
        """The number of the newest change that concerns the fence, or a greater one that does not break it either."""
        places = _places(fence)
        if any((change.user_id, change.casefile_id) in places for change in self._changes):
            # It has no number yet; whatever it will be, nobody can have read a permission as of it.
            return sys.maxsize
        seen = self._seen
        if seen is None:
            # Before anything else is read of the feed: what is judged again is all that comes after this.
            [seen] = self._tx.one(_NUMBER) or (0,)
            self._seen = seen
        # Most of the time nothing at all has changed since, which the head alone tells.
        return seen if seen <= fence.asof else max(self._newest(*place) for place in places)

    def _newest(self, user_id: str, casefile_id: str) -> int:
        [number] = self._tx.one(_NEWEST_CHANGE, user_id=user_id, casefile_id=casefile_id) or (0,)
        return number

    def accept(self, commit: Commit) -> None:
        """Keep the fences of a commit that goes into the batch."""
        if not self._is_held:
            self._fences += [one for one in commit.conditions if isinstance(one, Fenced)]

    def add(self, change: PermissionChanged) -> None:
        """A change of the batch; it gets its number when the batch is settled."""
        self._changes.append(change)

    def settle(self) -> Sequence[Change]:
        """Take the head, judge the fences again, and number the changes. Nothing but the commit may come after it.

        Raises:
            Overtaken: A fence is broken.
        """
        changes = self._changes
        if changes:
            [last] = self._tx.one(_TAKE_NUMBERS, count=len(changes)) or (0,)
            before = last - len(changes)
        elif self._fences:
            [[before]] = self._tx.text("SELECT number FROM acl_head FOR SHARE")
        else:
            return ()
        self._judge_again(before)
        numbered = [
            Change(number, change.casefile_id, change.user_id)
            for number, change in enumerate(changes, before + 1)
        ]
        rows = [
            {
                "number": one.number,
                "casefile_id": one.casefile_id,
                "user_id": one.user_id,
                "kind": change.kind,
                "at_us": to_us(change.at),
            }
            for one, change in zip(numbered, changes, strict=True)
        ]
        self._tx.bulk(_ADD_CHANGES, rows)
        return numbered

    def _judge_again(self, number: int) -> None:
        seen = self._seen
        since = (
            self._tx.all(_SINCE, after=seen) if self._fences and seen is not None and number > seen else ()
        )
        for fence in self._fences:
            places = _places(fence)
            found = max((number for number, *place in since if tuple(place) in places), default=0)
            # Asked without news, too: the grant may have ended while the head was waited for.
            if fence.refusal(found) is not None:
                raise Overtaken


def _places(fence: Fenced) -> Sequence[tuple[str, str]]:
    """What concerns it, as (user, casefile) in the feed."""
    everywhere = (fence.user_id, ANY)
    if isinstance(fence, AccountStands):
        return (everywhere,)
    return (fence.user_id, fence.casefile_id), (ANY, fence.casefile_id), everywhere
