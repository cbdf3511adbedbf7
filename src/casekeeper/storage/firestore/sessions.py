"""Sessions in Firestore, and the one rule that says which sessions a user sees."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from casekeeper.acl import Action, Role, roles_for
from casekeeper.casefiles.casefile import OpenRecordSession
from casekeeper.clock import to_us
from casekeeper.sessions import adoption as ado
from casekeeper.sessions import session as ses
from casekeeper.sessions.session import SessionFilter, SessionType, Total, UnifiedSession, Visibility
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.casefiles import live_grants
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.scans import chunks, walk
from casekeeper.storage.firestore.view import ChainEnd, KnownSessions, View, read_tail
from casekeeper.storage.rows import SESSION, picked, record_session, session_of, session_row

_PLACE = ("created_us", "session_id")
_NEWEST = tuple((name, "desc") for name in _PLACE)
_SUPERVISORS = roles_for(Action.SUPERVISE)


async def _put_session(view: View, session: UnifiedSession) -> None:
    if await view.get(at.session_place(session.session_id)) is not None:
        raise LookupError("a session of this id exists already")
    await _write(view, session)
    if session.auto:
        place = at.auto_session(session.user_id, session.casefile_id)
        await view.put(place, {"session_id": session.session_id})


async def _write(view: View, session: UnifiedSession) -> None:
    await view.put(at.session_place(session.session_id), {"casefile_id": session.casefile_id})
    row = {**session_row(session), "metadata": json.dumps(session.metadata).encode()}
    await view.put(at.session(session.casefile_id, session.session_id), row)


async def _end_session(view: View, r: ses.EndSession) -> None:
    session, casefile_id = await view.session(r.session_id), await view.casefile_of(r.session_id)
    if session is not None and casefile_id is not None:
        await view.put(at.session(casefile_id, r.session_id), {**session, "closed_us": to_us(r.at)})


async def _put_conversation(view: View, r: ses.PutConversation) -> None:
    row = {"event_id": r.event_id, "blob": r.blob, "casefile_id": await view.casefile_of(r.session_id)}
    await view.put(at.conversation(r.session_id), row)


async def _closed_us(view: View, c: ses.SessionIsOpen) -> int | None:
    session = await view.session(c.session_id)
    return None if session is None else session["closed_us"] or 0


async def _auto(view: View, c: ses.AutoSessionIsAbsent) -> str | None:
    pointer = await view.get(at.auto_session(c.user_id, c.casefile_id))
    session = await view.session(pointer["session_id"]) if pointer else None
    if pointer is None or session is None or session["closed_us"] is not None:
        return None
    tail = await view.tail(c.casefile_id, pointer["session_id"])
    used = max(tail.last_us, session["created_us"])
    return pointer["session_id"] if used >= to_us(c.active_since) else None


async def _place(view: View, c: ado.SessionIdIsFreeIn) -> str | None:
    place = await view.get(at.session_place(c.session_id))
    return place["casefile_id"] if place else None


FINDS: Finds = {
    ses.SessionIsOpen: _closed_us,
    ses.SessionIdIsFree: lambda view, c: view.get(at.session_place(c.session_id)),
    ses.AutoSessionIsAbsent: _auto,
    ado.SessionIdIsFreeIn: _place,
}
WRITES: Writes = {
    OpenRecordSession: lambda view, r: _put_session(view, record_session(r)),
    ses.PutSession: lambda view, r: _put_session(view, r.session),
    ado.AdoptSession: lambda view, r: _write(view, r.session),
    ses.EndSession: _end_session,
    ses.PutConversation: _put_conversation,
}


def _if_known(one: ses.SessionIsOpen | ses.EndSession, casefile_ids: Mapping[str, str]) -> Sequence[str]:
    casefile_id = casefile_ids.get(one.session_id)
    return [at.session(casefile_id, one.session_id)] if casefile_id else []


def _new(r: ses.PutSession, _: object) -> Sequence[str]:
    session = r.session
    return at.session_place(session.session_id), at.session(session.casefile_id, session.session_id)


AHEAD: Ahead = {ses.SessionIsOpen: _if_known, ses.EndSession: _if_known, ses.PutSession: _new}


class FirestoreSessions:
    """Implements `SessionStore`."""

    def __init__(self, store: Firestore, memory: KnownSessions) -> None:
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
        return _session(found[place].fields, tail)

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
        return [_session(row, tail) for row, tail in zip(rows, tails, strict=True)]

    async def totals(self, session_id: str) -> Sequence[Total]:
        casefile_id = await casefile_of(self._store, self._memory, session_id)
        tail = await read_tail(self._store, casefile_id, session_id) if casefile_id else None
        return [Total(*names, *counted) for names, counted in tail.totals.items()] if tail else []


async def casefile_of(store: Firestore, memory: KnownSessions, session_id: str) -> str | None:
    """In which casefile a session is, which never changes."""
    known = memory.casefiles.get(session_id)
    if known is None:
        place = await store.one(at.session_place(session_id))
        if place is None:
            return None
        known = memory.casefiles[session_id] = place.fields["casefile_id"]
    return known


def is_seen(session: Fields, user_id: str, role: Role) -> bool:
    """Same rule as `sessions.manager`: own ones, shared ones, and all for those who supervise; the record session for these."""
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


def _session(row: Fields, tail: ChainEnd | None) -> UnifiedSession:
    head = (tail.last_us, tail.seq, tail.hash) if tail else (row["created_us"], 0, b"")
    return session_of((*picked(SESSION, row), *head))
