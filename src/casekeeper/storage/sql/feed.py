"""The permission feed as one batch meets it: the fences that it is judged by, and the numbers of its own changes.

Who changes permissions, or starts something under one, holds the head of the feed until the commit: so numbers come in
the order of commits, and nothing starts beside a revoke that it did not see. That makes everybody wait for everybody, so
the head is taken last. Fences are judged without it first; once it is held, whatever was committed in between is held
against them again (docs/decisions/0016).
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from casekeeper.acl_feed import ANY, Change
from casekeeper.casefiles.casefile import Fence
from casekeeper.clock import to_us
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.commits import Commit, PermissionChanged
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import Bulk, Question, Row, Static, Tx

_NUMBER = Static(select(t.acl_head.c.number))
_SINCE = Static(
    select(t.acl_feed.c.number, t.acl_feed.c.user_id, t.acl_feed.c.casefile_id).where(
        t.acl_feed.c.number > bindparam("after")
    )
)
_TAKE_NUMBERS = Static(
    update(t.acl_head).values(number=t.acl_head.c.number + bindparam("count")).returning(t.acl_head.c.number)
)
_ADD_CHANGES = Bulk(t.acl_feed)
_SHARE_HEAD = Static(select(t.acl_head.c.number).with_for_update(read=True))


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


class BatchFeed:
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

    def newest(self, fence: Fenced) -> int:
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

    def add(self, change: PermissionChanged) -> None:
        """A change of the batch; it gets its number when the batch is settled."""
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


def _places(fence: Fenced) -> Sequence[tuple[str, str]]:
    """What concerns it, as (user, casefile) in the feed."""
    everywhere = (fence.user_id, ANY)
    if isinstance(fence, AccountStands):
        return (everywhere,)
    return (fence.user_id, fence.casefile_id), (ANY, fence.casefile_id), everywhere
