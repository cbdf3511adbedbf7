"""The permission feed in SQL: how it is read, the fences that a batch is judged by, and the numbers of its own changes.

Who changes permissions, or starts something under one, holds the head of the feed until the commit: so numbers come in
the order of commits, and nothing starts beside a revoke that it did not see. That makes everybody wait for everybody, so
the head is taken last. Fences are judged without it first; once it is held, whatever was committed in between is held
against them again (docs/decisions/0016).
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Table, Text, bindparam, func, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from casekeeper.acl_feed import ANY, Change, FeedHead
from casekeeper.casefiles.casefile import Fence
from casekeeper.clock import to_us
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.commits import Commit, PermissionChanged
from casekeeper.storage.sql.parts import FindsHere, Part, TakesHere
from casekeeper.storage.sql.schema import integer, metadata, string
from casekeeper.storage.sql.statements import Bulk, Question, Reads, Row, Static, Tx

ACL_HEAD = Table("acl_head", metadata, integer("id", key=True), string("epoch"), integer("number"))

ACL_FEED = Table(
    "acl_feed",
    metadata,
    integer("number", key=True),
    string("casefile_id"),
    string("user_id"),
    string("kind"),
    integer("at_us"),
    Index("acl_feed_pair", "user_id", "casefile_id", "number"),
)

_f = ACL_FEED.c
user_changed = select(func.coalesce(func.max(_f.number), 0)).where(
    _f.user_id == bindparam("user_id"), _f.casefile_id == ANY
)
"""The number of the newest change of the account `:user_id`, 0 if there was none."""

HEAD = Static(select(ACL_HEAD.c.epoch, ACL_HEAD.c.number))
USER_CHANGED = Static(user_changed)
_CHANGES = Static(
    select(_f.number, _f.casefile_id, _f.user_id).where(_f.number > bindparam("after")).order_by(_f.number)
)
# Walks back from the newest number, so it reads what is younger and no more.
_NUMBER_BEFORE = Static(
    select(_f.number).where(_f.at_us < bindparam("instant")).order_by(_f.number.desc()).limit(1)
)
_NUMBER = Static(select(ACL_HEAD.c.number))
_SINCE = Static(select(_f.number, _f.user_id, _f.casefile_id).where(_f.number > bindparam("after")))
_TAKE_NUMBERS = Static(
    update(ACL_HEAD).values(number=ACL_HEAD.c.number + bindparam("count")).returning(ACL_HEAD.c.number)
)
_ADD_CHANGES = Bulk(ACL_FEED)
_SHARE_HEAD = Static(select(ACL_HEAD.c.number).with_for_update(read=True))


class _Newest(ClauseElement):
    """The newest change of each place in a JSON list of (user, casefile): one short descent of one index for each.

    None at all if no change came after a number, which the head alone tells.
    """

    inherit_cache = True

    def __init__(self) -> None:
        self.places = bindparam("places", type_=Text())
        self.after = bindparam("after", type_=BigInteger())


@compiles(_Newest)
def _newest(element: _Newest, compiler: SQLCompiler, **more: Any) -> str:
    places, after = compiler.process(element.places, **more), compiler.process(element.after, **more)
    of = _OF_PLACE.format("json_extract(value, '$[0]')", "json_extract(value, '$[1]')")
    return f"{of} FROM json_each({places}) WHERE {_SOME_CAME} {after}"


@compiles(_Newest, "postgresql")
def _newest_postgres(element: _Newest, compiler: SQLCompiler, **more: Any) -> str:
    places, after = compiler.process(element.places, **more), compiler.process(element.after, **more)
    of = _OF_PLACE.format("value->>0", "value->>1")
    return f"{of} FROM jsonb_array_elements(({places})::jsonb) AS value WHERE {_SOME_CAME} {after}"


_OF_PLACE = "SELECT {0}, {1}, (SELECT max(number) FROM acl_feed WHERE user_id = {0} AND casefile_id = {1})"
_SOME_CAME = "(SELECT number FROM acl_head) >"
_NEWEST = Static(_Newest())

Fenced = Fence | AccountStands
"""Conditions that ask for the newest change of somebody's permission."""


class Overtaken(Exception):
    """A fence that held when it was judged does not hold under the head of the feed: the batch must begin anew."""


class BatchFeed(Part):
    """The feed within one transaction."""

    def __init__(self, tx: Tx, *, is_held: bool) -> None:
        """`is_held`: the head is held from the beginning, or nobody else writes: what was judged once stays true."""
        self._tx = tx
        self._is_held = is_held
        self._seen = 0
        self._newest: dict[tuple[str, str], int] = {}
        self._fences: list[Fenced] = []
        self._changes: list[PermissionChanged] = []

    def questions(self, commits: Iterable[Commit]) -> Sequence[Question]:
        """What the fences of these commits are judged by."""
        fences = [one for commit in commits for one in commit.conditions if isinstance(one, Fenced)]
        if not fences:
            return ()
        if self._tx.is_remote:
            return Question(_NUMBER, {}, self._see), self._about(fences)

        def see(rows: list[Row]) -> None:
            self._see(rows)
            # Most of the time nothing at all has changed since.
            if older := [fence for fence in fences if fence.asof < self._seen]:
                self._tx.ask((self._about(older),))

        return (Question(_NUMBER, {}, see),)

    def _about(self, fences: Sequence[Fenced]) -> Question:
        places = json.dumps(sorted({place for fence in fences for place in _places(fence)}))
        return Question(_NEWEST, {"places": places, "after": min(fence.asof for fence in fences)}, self._know)

    def _see(self, rows: list[Row]) -> None:
        # No newer than anything else that is seen of the feed: what is judged again is all that comes after this.
        self._seen = rows[0][0]

    def _know(self, rows: list[Row]) -> None:
        self._newest = {(user_id, casefile_id): number for user_id, casefile_id, number in rows if number}

    def _newest_of(self, fence: Fenced) -> int:
        """The number of the newest change that concerns the fence, or one that does not break it either."""
        places = _places(fence)
        if any((change.user_id, change.casefile_id) in places for change in self._changes):
            # It has no number yet; whatever it will be, nobody can have read a permission as of it.
            return sys.maxsize
        return max(self._newest.get(place, 0) for place in places)

    def accept(self, commit: Commit) -> None:
        """Keep the fences of a commit that goes into the batch."""
        if not self._is_held:
            self._fences += [one for one in commit.conditions if isinstance(one, Fenced)]

    def _add(self, change: PermissionChanged) -> None:
        # It gets its number when the batch is settled.
        self._changes.append(change)

    @property
    def last(self) -> Static | None:
        """How the head is shared, for a batch of fences alone. Its answer is for `settle`."""
        return _SHARE_HEAD if self._fences and not self._changes else None

    def settle(self, head: Row | None) -> Sequence[Change]:
        """Take the head for changes, judge the fences again, and number the changes.

        Nothing but the commit may come after it.

        Raises:
            Overtaken: A fence is broken.
        """
        changes = self._changes
        if changes:
            [last] = self._tx.one(_TAKE_NUMBERS, count=len(changes)) or (0,)
            before = last - len(changes)
        elif head:
            [before] = head
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
        if rows:
            self._tx.write([(_ADD_CHANGES, rows)])
        return numbered

    def _judge_again(self, number: int) -> None:
        seen = self._seen
        since = self._tx.all(_SINCE, after=seen) if self._fences and number > seen else ()
        for fence in self._fences:
            places = _places(fence)
            found = max((number for number, *place in since if tuple(place) in places), default=0)
            # Asked without news, too: the grant may have ended while the head was waited for.
            if fence.refusal(found) is not None:
                raise Overtaken

    finds: ClassVar[FindsHere] = {Fence: _newest_of, AccountStands: _newest_of}
    takes: ClassVar[TakesHere] = {PermissionChanged: _add}


def _places(fence: Fenced) -> Sequence[tuple[str, str]]:
    """What concerns it, as (user, casefile) in the feed."""
    everywhere = (fence.user_id, ANY)
    if isinstance(fence, AccountStands):
        return (everywhere,)
    return (fence.user_id, fence.casefile_id), (ANY, fence.casefile_id), everywhere


class SqlFeed:
    """Implements what `AclFeed` says of the feed itself."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def head(self) -> FeedHead:
        row = await self._reads.point(lambda tx: tx.one(HEAD))
        assert row is not None, "a migrated store has a feed"
        return FeedHead(*row)

    async def changes(self, after: int) -> Sequence[Change]:
        rows = await self._reads.point(lambda tx: tx.all(_CHANGES, after=after))
        return [Change(*row) for row in rows]

    async def number_before(self, instant_us: int) -> int:
        row = await self._reads.point(lambda tx: tx.one(_NUMBER_BEFORE, instant=instant_us))
        return row[0] if row else 0

    async def user_changed(self, user_id: str) -> int:
        row = await self._reads.point(lambda tx: tx.one(USER_CHANGED, user_id=user_id))
        return row[0] if row else 0
