"""Claims of requests in Firestore."""

from datetime import datetime

from casekeeper.clock import to_us
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.view import View
from casekeeper.storage.rows import us


def _live(claim: Fields | None, now: datetime) -> Fields | None:
    is_over = claim is None or (claim["expires_us"] is not None and claim["expires_us"] <= to_us(now))
    return None if is_over else claim


async def _claimed(view: View, c: Claim) -> str | None:
    claim = _live(await view.get(at.request(c.key)), c.now)
    return claim["made"] if claim else None


async def _put(view: View, r: Claim) -> None:
    claim = {"fingerprint": r.fingerprint, "made": r.made, "expires_us": us(r.expires_at)}
    await view.put(at.request(r.key), claim)


async def _release(view: View, r: ReleaseClaim) -> None:
    opened = await view.get(at.open_operation(r.made))
    if opened is None:
        paths = await view.find(Query("requests", where=(("made", "==", r.made),)))
    else:
        paths = [at.request(opened["claim"])] if opened["claim"] else []
    for path in paths:
        claim = await view.get(path)
        if claim is not None and claim["expires_us"] is None:
            await view.put(path, {**claim, "expires_us": to_us(r.expires_at)})


FINDS: Finds = {Claim: _claimed}
WRITES: Writes = {Claim: _put, ReleaseClaim: _release}
AHEAD: Ahead = {Claim: lambda claim, _: [at.request(claim.key)]}


class FirestoreClaims:
    """Implements `Claims`."""

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        found = await self._store.one(at.request(key))
        claim = _live(found.fields if found else None, now)
        return (claim["fingerprint"], claim["made"]) if claim else None
