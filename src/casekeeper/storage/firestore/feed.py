"""The permission feed in Firestore: its changes, the newest of each user and casefile, and the fences judged by those."""

from collections.abc import Iterable, Sequence

from casekeeper.acl_feed import ANY, Change, FeedHead
from casekeeper.casefiles.casefile import Fence
from casekeeper.clock import to_us
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.commits import PermissionChanged
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Query
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.view import View

# How far back a look into the feed goes at a time.
_PAGE = 100


async def _change(view: View, r: PermissionChanged) -> None:
    head = await view.get(at.FEED_HEAD)
    assert head is not None, "an open store has a feed"
    number = head["number"] + 1
    await view.put(at.FEED_HEAD, {**head, "number": number})
    row = {"number": number, "casefile_id": r.casefile_id, "user_id": r.user_id}
    view.create(at.change(number), {**row, "kind": r.kind, "at_us": to_us(r.at)})
    await view.put(at.mark(r.user_id, r.casefile_id), {"number": number})
    view.changes.append(Change(number, r.casefile_id, r.user_id))


async def _newest(view: View, marks: Iterable[str]) -> int:
    numbers: list[int] = []
    for path in dict.fromkeys(marks):
        mark = await view.get(path)
        if mark is None:
            # It has to be there for a commit to check that it has not changed.
            await view.put(path, mark := {"number": 0})
        numbers.append(mark["number"])
    return max(numbers)


FINDS: Finds = {
    Fence: lambda view, c: _newest(view, at.marks(c.user_id, c.casefile_id)),
    AccountStands: lambda view, c: _newest(view, [at.mark(c.user_id, ANY)]),
}
WRITES: Writes = {PermissionChanged: _change}
AHEAD: Ahead = {
    Fence: lambda c, _: at.marks(c.user_id, c.casefile_id),
    PermissionChanged: lambda r, _: [at.FEED_HEAD, at.mark(r.user_id, r.casefile_id)],
}


class FirestoreFeed:
    """Implements what `AclFeed` says of the feed itself."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def head(self) -> FeedHead:
        found = await self._store.one(at.FEED_HEAD)
        assert found is not None, "an open store has a feed"
        return FeedHead(found.fields["epoch"], found.fields["number"])

    async def changes(self, after: int) -> Sequence[Change]:
        found = await self._store.query(
            Query("acl_feed", where=(("number", ">", after),), order=(("number", "asc"),))
        )
        rows = [one.fields for one in found]
        return [Change(row["number"], row["casefile_id"], row["user_id"]) for row in rows]

    async def number_before(self, instant_us: int) -> int:
        after: tuple[int, ...] | None = None
        # Walks back from the newest number, so it reads what is younger and little more.
        while True:
            page = Query("acl_feed", order=(("number", "desc"),), after=after, limit=_PAGE)
            found = await self._store.query(page)
            for one in found:
                if one.fields["at_us"] < instant_us:
                    return one.fields["number"]
            if len(found) < _PAGE:
                return 0
            after = (found[-1].fields["number"],)

    async def user_changed(self, user_id: str) -> int:
        found = await self._store.one(at.mark(user_id, ANY))
        return found.fields["number"] if found else 0
