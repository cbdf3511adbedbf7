"""Casefiles and grants in Firestore."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from casekeeper.acl import Grant, Role
from casekeeper.acl_feed import ANY
from casekeeper.casefiles import casefile as cf
from casekeeper.casefiles.casefile import Casefile, PublicRole, Status, StoredAccess
from casekeeper.clock import to_us
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.view import View
from casekeeper.storage.rows import (
    CASEFILE,
    GRANT,
    casefile_of,
    casefile_row,
    grant_of,
    grant_row,
    instant,
    is_live,
    picked,
)

_PAGE_MAX = 300
_NOT_DELETED: Fields = {"deleted_us": None, "is_to_erase": False}
_NEWEST = (("created_us", "desc"), ("casefile_id", "desc"))


async def _put_casefile(view: View, r: cf.PutCasefile) -> None:
    path = at.casefile(r.casefile.casefile_id)
    before = await view.get(path)
    # A tombstone stays one.
    gone = {name: before[name] if before else given for name, given in _NOT_DELETED.items()}
    await view.put(path, {**casefile_row(r.casefile), **gone})


async def _delete_casefile(view: View, r: cf.DeleteCasefile) -> None:
    path = at.casefile(r.casefile_id)
    casefile = await view.get(path)
    if casefile is not None:
        await view.put(path, {**casefile, "deleted_us": to_us(r.at), "is_to_erase": True})


async def _put_grant(view: View, r: cf.PutGrant) -> None:
    casefile = await view.get(at.casefile(r.grant.casefile_id))
    created_us = casefile["created_us"] if casefile else 0
    await view.put(at.grant(r.grant.casefile_id, r.grant.user_id), grant_row(r.grant, created_us))


async def _of_casefile(view: View, casefile_id: str, name: str) -> Any:
    casefile = await view.get(at.casefile(casefile_id))
    return None if casefile is None or casefile["deleted_us"] is not None else casefile[name]


async def _ids_taken(view: View, c: cf.CasefileIdIsFree) -> bool:
    taken = [await view.get(path) for path in (at.casefile(c.casefile_id), at.session_place(c.session_id))]
    return any(found is not None for found in taken)


async def _grant_end(view: View, c: cf.GrantEndsAt) -> datetime | None:
    grant = await view.get(at.grant(c.casefile_id, c.user_id))
    return instant(grant["expires_us"]) if grant else None


FINDS: Finds = {
    cf.CasefileIsActive: lambda view, c: _of_casefile(view, c.casefile_id, "status"),
    cf.CasefileIsAt: lambda view, c: _of_casefile(view, c.casefile_id, "version"),
    cf.CasefileIdIsFree: _ids_taken,
    cf.CasefileIsAbsent: lambda view, c: view.get(at.casefile(c.casefile_id)),
    cf.GrantEndsAt: _grant_end,
}
WRITES: Writes = {
    cf.PutCasefile: _put_casefile,
    cf.DeleteCasefile: _delete_casefile,
    cf.PutGrant: _put_grant,
    cf.RemoveGrant: lambda view, r: view.delete(at.grant(r.casefile_id, r.user_id)),
}
AHEAD: Ahead = {
    cf.CasefileIsActive: lambda c, _: [at.casefile(c.casefile_id)],
    cf.CasefileIsAt: lambda c, _: [at.casefile(c.casefile_id)],
    cf.PutGrant: lambda r, _: [at.grant(r.grant.casefile_id, r.grant.user_id)],
}


class FirestoreCasefiles:
    """Implements `CasefileStore`."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def access(self, user_id: str, casefile_id: str) -> StoredAccess | None:
        paths = (
            at.casefile(casefile_id),
            at.account(user_id),
            at.FEED_HEAD,
            at.mark(user_id, ANY),
            at.grant(casefile_id, user_id),
        )
        found = await self._store.get(paths, consistent=True)
        casefile, account, head, mark, grant = (found.get(path) for path in paths)
        assert head is not None, "an open store has a feed"
        # A deactivated account has no grant, whatever is stored.
        if casefile is None or casefile.fields["deleted_us"] is not None:
            return None
        if account is None or not account.fields["is_active"]:
            return None
        return StoredAccess(
            grant_of(picked(GRANT, grant.fields)) if grant else None,
            PublicRole(casefile.fields["public_role"]),
            head.fields["number"],
            mark.fields["number"] if mark else 0,
            frozenset(casefile.fields["tags"]),
        )

    async def casefile(self, casefile_id: str) -> Casefile | None:
        found = await self._store.one(at.casefile(casefile_id))
        if found is None or found.fields["deleted_us"] is not None:
            return None
        return casefile_of(picked(CASEFILE, found.fields))

    async def casefiles_of(
        self, user_id: str, now: datetime, status: Status | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[tuple[Casefile, Role]]:
        taken: list[tuple[Casefile, Role]] = []
        after, page, where = before, max(limit, 10), (("user_id", "==", user_id),)
        while len(taken) < limit:
            wanted = Query("grants", everywhere=True, where=where, order=_NEWEST, after=after, limit=page)
            grants = [one.fields for one in await self._store.query(wanted)]
            live = [grant for grant in grants if is_live(grant["expires_us"], to_us(now))]
            found = await self._store.get([at.casefile(grant["casefile_id"]) for grant in live])
            for grant in live:
                row = found[at.casefile(grant["casefile_id"])].fields
                if row["deleted_us"] is None and status in (None, Status(row["status"])):
                    taken.append((casefile_of(picked(CASEFILE, row)), Role(grant["role"])))
            if len(grants) < page:
                break
            after = (grants[-1]["created_us"], grants[-1]["casefile_id"])
            # Whoever has archived a thousand must not ask for them ten at a time.
            page = min(2 * page, _PAGE_MAX)
        return taken[:limit]

    async def grant(self, casefile_id: str, user_id: str) -> Grant | None:
        found = await self._store.one(at.grant(casefile_id, user_id))
        return grant_of(picked(GRANT, found.fields)) if found else None

    async def grants(self, casefile_id: str, after: str, limit: int) -> Sequence[Grant]:
        page = Query(
            "grants", at.casefile(casefile_id), order=(("user_id", "asc"),), after=(after,), limit=limit
        )
        return [grant_of(picked(GRANT, one.fields)) for one in await self._store.query(page)]

    async def expired_grants(self, now: datetime, limit: int) -> Sequence[Grant]:
        found = await self._store.query(
            Query(
                "grants",
                everywhere=True,
                where=(("expires_us", "<=", to_us(now)),),
                order=(("expires_us", "asc"),),
                limit=limit,
            )
        )
        return [grant_of(picked(GRANT, one.fields)) for one in found]

    async def casefile_ids(self, after: str, limit: int) -> Sequence[str]:
        taken: list[str] = []
        while len(taken) < limit:
            page = Query(
                "casefiles",
                order=(("casefile_id", "asc"),),
                after=(after,),
                limit=limit,
                only=("casefile_id", "deleted_us"),
            )
            found = [one.fields for one in await self._store.query(page)]
            taken += [row["casefile_id"] for row in found if row["deleted_us"] is None]
            if len(found) < limit:
                break
            after = found[-1]["casefile_id"]
        return taken[:limit]

    async def deleted_casefiles(self, limit: int) -> Sequence[str]:
        found = await self._store.query(Query("casefiles", where=(("is_to_erase", "==", True),), limit=limit))
        ids = [one.fields["casefile_id"] for one in found]
        # What still runs will write its end, and that has to be erased as well.
        return [casefile_id for casefile_id in ids if not await self._is_busy(casefile_id)]

    async def _is_busy(self, casefile_id: str) -> bool:
        where = (("casefile_id", "==", casefile_id),)
        return bool(await self._store.query(Query("open_operations", where=where, limit=1)))


async def live_grants(
    store: Firestore, user_id: str, now: datetime, only_in: str | None = None
) -> dict[str, Role]:
    """The casefiles in which a user has a role now, or the one that is asked for."""
    if only_in is None:
        wanted = ("casefile_id", "role", "expires_us")
        mine = Query("grants", everywhere=True, where=(("user_id", "==", user_id),), only=wanted)
        found = await store.query(mine)
    else:
        found = (await store.get([at.grant(only_in, user_id)])).values()
    rows = [one.fields for one in found]
    roles = {row["casefile_id"]: Role(row["role"]) for row in rows if is_live(row["expires_us"], to_us(now))}
    casefiles = await store.get([at.casefile(casefile_id) for casefile_id in roles])
    gone = {c.fields["casefile_id"] for c in casefiles.values() if c.fields["deleted_us"] is not None}
    return {casefile_id: role for casefile_id, role in roles.items() if casefile_id not in gone}
