"""Accounts, the permission feed and claims as one reader, and what a token is made of."""

from collections.abc import Collection

from casekeeper.acl_feed import ANY, AccessSnapshot, Scope
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.accounts import FirestoreCredentials
from casekeeper.storage.firestore.feed import FirestoreFeed
from casekeeper.storage.firestore.requests import FirestoreClaims
from casekeeper.storage.rows import is_live, scope_of


class FirestoreIdentities(FirestoreCredentials, FirestoreFeed, FirestoreClaims):
    """Implements `Identities`."""

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        mark = at.mark(user_id, ANY)
        grants = {casefile_id: at.grant(casefile_id, user_id) for casefile_id in casefile_ids}
        casefiles = {casefile_id: at.casefile(casefile_id) for casefile_id in casefile_ids}
        paths = (at.FEED_HEAD, mark, *grants.values(), *casefiles.values())
        found = await self._store.get(paths, consistent=True)
        head, changed = found[at.FEED_HEAD].fields, found.get(mark)
        scopes: dict[str, Scope] = {}
        for casefile_id in casefile_ids:
            grant, casefile = found.get(grants[casefile_id]), found.get(casefiles[casefile_id])
            if grant is None or casefile is None or casefile.fields["deleted_us"] is not None:
                continue
            expires_us = grant.fields["expires_us"]
            if is_live(expires_us, now_us):
                scopes[casefile_id] = scope_of(grant.fields["role"], expires_us)
        user_changed = changed.fields["number"] if changed else 0
        return AccessSnapshot(head["epoch"], head["number"], user_changed, scopes)
