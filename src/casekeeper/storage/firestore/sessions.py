"""Sessions, read from Firestore, and the one rule that says which sessions a user sees."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from casekeeper.acl import Role
from casekeeper.clock import to_us
from casekeeper.sessions.session import SessionFilter, SessionType, Total, UnifiedSession, Visibility
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.casefiles import live_grants
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.rows import session_of
from casekeeper.storage.firestore.scans import chunks, walk
from casekeeper.storage.firestore.view import Memory, read_tail

_PLACE = ("created_us", "session_id")
_NEWEST = tuple((name, "desc") for name in _PLACE)
_SUPERVISORS = (Role.ADMIN, Role.OWNER)


class FirestoreSessions:
    """Implements `SessionStore`."""

    def __init__(self, store: Firestore, memory: Memory) -> None:
        self._store = store
        self._memory = memory

    async def session(self, session_id: str) -> UnifiedSession | None:
        casefile_id = await casefile_of(self._store, self._memory, session_id)
        if casefile_id is None:
            return None
        place, casefile = at.session(casefile_id, session_id), at.casefile(casefile_id)
        found, tail = await asyncio.gather(
            self._store.get([place, casefile]), read_tail(self._store, casefile_id, session_id)
        )
        if place not in found or casefile not in found or found[casefile].fields["deleted_us"] is not None:
            return None
        return session_of(found[place].fields, tail)

    async def auto_session(
        self, user_id: str, casefile_id: str, active_since: datetime
    ) -> UnifiedSession | None:
        pointer = await self._store.one(at.auto_session(user_id, casefile_id))
        session = await self.session(pointer.fields["session_id"]) if pointer else None
        if session is None or not session.active or session.last_activity_at < active_since:
            return None
        return session

    async def sessions_seen_by(
        self, user_id: str, now: datetime, wanted: SessionFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[UnifiedSession]:
        roles = await live_grants(self._store, user_id, now, wanted.casefile_id)
        all_of = [casefile_id for casefile_id, role in roles.items() if role in _SUPERVISORS]
        some_of = [casefile_id for casefile_id, role in roles.items() if role not in _SUPERVISORS]
        places: list[tuple[tuple[str, str, Any], ...]] = [
            (("casefile_id", "in", chunk),) for chunk in chunks(all_of)
        ]
        for chunk in chunks(some_of):
            inside = ("casefile_id", "in", chunk)
            places.append((inside, ("user_id", "==", user_id)))
            places.append((inside, ("visibility", "==", Visibility.CASEFILE.value)))
        queries = [
            Query("sessions", everywhere=True, where=where, order=_NEWEST, after=before) for where in places
        ]
        found = await walk(self._store, queries, _wanted(wanted), limit, by=_PLACE)
        rows = [one.fields for one in found]
        tails = await asyncio.gather(
            *(read_tail(self._store, row["casefile_id"], row["session_id"]) for row in rows)
        )
        return [session_of(row, tail) for row, tail in zip(rows, tails, strict=True)]

    async def totals(self, session_id: str) -> Sequence[Total]:
        casefile_id = await casefile_of(self._store, self._memory, session_id)
        tail = await read_tail(self._store, casefile_id, session_id) if casefile_id else None
        return [Total(*names, *counted) for names, counted in tail.totals.items()] if tail else []


async def casefile_of(store: Firestore, memory: Memory, session_id: str) -> str | None:
    """In which casefile a session is, which never changes."""
    known = memory.casefiles.get(session_id)
    if known is None:
        place = await store.one(at.session_place(session_id))
        if place is None:
            return None
        known = memory.casefiles[session_id] = place.fields["casefile_id"]
    return known


def is_seen(session: Fields, user_id: str, role: Role) -> bool:
    """Same rule as `sessions.manager`: own ones, shared ones, and for admins all; the record session for admins."""
    if role in _SUPERVISORS:
        return True
    if session["session_type"] == SessionType.RECORD:
        return False
    return session["user_id"] == user_id or session["visibility"] == Visibility.CASEFILE


def _wanted(wanted: SessionFilter) -> Callable[[Fields], Awaitable[bool]]:
    """What of a filter the queries do not say."""

    async def accept(row: Fields) -> bool:
        return not (
            row["session_type"] == SessionType.RECORD
            or (wanted.user_id is not None and row["user_id"] != wanted.user_id)
            or (wanted.active is not None and (row["closed_us"] is None) != wanted.active)
            or (wanted.session_type is not None and row["session_type"] != wanted.session_type)
            or (wanted.created_after is not None and row["created_us"] < to_us(wanted.created_after))
            or (wanted.created_before is not None and row["created_us"] >= to_us(wanted.created_before))
            or (wanted.text is not None and wanted.text.lower() not in (row["title"] or "").lower())
        )

    return accept
