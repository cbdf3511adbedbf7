"""The record, read from Firestore."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from casekeeper.clock import to_us
from casekeeper.journal.events import StoredFact
from casekeeper.sessions.reading import EventFilter, EventPage, QueryEvents
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.casefiles import live_grants
from casekeeper.storage.firestore.chunks import chunked
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.heads import NewestFacts
from casekeeper.storage.firestore.messages import Fields, Query, StoredDocument
from casekeeper.storage.firestore.operations import FirestoreOperations
from casekeeper.storage.firestore.presence import Workers
from casekeeper.storage.firestore.scans import chunks, walk
from casekeeper.storage.firestore.sessions import casefile_of, is_seen
from casekeeper.storage.firestore.view import KnownSessions

Row = tuple[Any, ...]
# What orders facts of all sessions, and what pages of one session are asked by.
_PLACE = ("at_us", "session_id", "seq")
_ASKED_IN_A_SESSION = ("is_terminal", "operation_name", "kind")


class FirestoreEvents(FirestoreOperations):
    """Implements `Events`."""

    def __init__(self, store: Firestore, memory: KnownSessions, workers: Workers) -> None:
        super().__init__(store, workers)
        self._memory = memory
        self._newest = NewestFacts(store, memory)
        # Whose pseudonym it is never changes.
        self._names: dict[str, str] = {}

    async def facts(
        self, session_id: str, wanted: EventPage, beyond: int | None, limit: int
    ) -> Sequence[StoredFact]:
        casefile_id = await casefile_of(self._store, self._memory, session_id)
        if casefile_id is None:
            return []
        filters = await self._filters(wanted)
        query = Query(
            "events",
            at.session(casefile_id, session_id),
            where=filters.where(_ASKED_IN_A_SESSION),
            order=(("seq", wanted.order),),
            after=None if beyond is None else (beyond,),
        )
        if wanted.text is None:
            found = await walk(self._store, [query], filters.accept, limit, by=("seq",))
            return await self.stored(found)
        return await self._with_text([query], filters, wanted.text, limit)

    async def facts_seen_by(
        self,
        user_id: str,
        now: datetime,
        wanted: QueryEvents,
        beyond: tuple[int, str, int] | None,
        limit: int,
    ) -> Sequence[StoredFact]:
        roles = await live_grants(self._store, user_id, now, wanted.casefile_id)
        filters = await self._filters(wanted)
        if wanted.session_ids:
            queries = await self._of_sessions(wanted, beyond)
        else:
            wanted_ids = [("event_id", "in", chunk) for chunk in chunks(wanted.event_ids)]
            inside = wanted_ids or [("casefile_id", "in", chunk) for chunk in chunks(list(roles))]
            order = tuple((name, wanted.order) for name in _PLACE)
            queries = [
                Query("events", everywhere=True, where=(one, *filters.where()), order=order, after=beyond)
                for one in inside
            ]
        seen: dict[str, bool] = {}
        event_ids = set(wanted.event_ids)

        async def is_visible(row: Fields) -> bool:
            role = roles.get(row["casefile_id"])
            if role is None or (event_ids and row["event_id"] not in event_ids):
                return False
            if row["session_id"] not in seen:
                session = await self._store.one(at.session(row["casefile_id"], row["session_id"]))
                seen[row["session_id"]] = session is not None and is_seen(session.fields, user_id, role)
            return seen[row["session_id"]]

        filters.judges.append(is_visible)
        if wanted.text is None:
            return await self.stored(await walk(self._store, queries, filters.accept, limit, by=_PLACE))
        return await self._with_text(queries, filters, wanted.text, limit, by=_PLACE)

    async def _of_sessions(self, wanted: QueryEvents, beyond: tuple[int, str, int] | None) -> list[Query]:
        """One query for each session: Firestore does not order by what it is asked to be one of."""
        queries: list[Query] = []
        for session_id in wanted.session_ids:
            casefile_id = await casefile_of(self._store, self._memory, session_id)
            if casefile_id is not None:
                order = (("at_us", wanted.order), ("seq", wanted.order))
                after = beyond and (beyond[0], _seq_beyond(session_id, wanted.order, beyond))
                queries.append(Query("events", at.session(casefile_id, session_id), order=order, after=after))
        return queries

    async def heads(self, session_ids: Collection[str]) -> Mapping[str, int]:
        return await self._newest.heads(session_ids)

    async def operation(self, event_id: str) -> Sequence[StoredFact]:
        found = await self._store.query(
            Query("events", everywhere=True, where=(("event_id", "==", event_id),))
        )
        return await self.stored(sorted(found, key=lambda one: one.fields["seq"]))

    async def children(self, event_id: str) -> Sequence[StoredFact]:
        found = await self._store.query(
            Query("events", everywhere=True, where=(("parent_event_id", "==", event_id),))
        )
        return await self.stored(sorted(found, key=lambda one: one.fields["seq"]))

    async def record(self, session_id: str, after: int, limit: int) -> Sequence[Row]:
        """Raw record rows (seq, header, hash, commitment, salt, body, blob) behind a seq, for verification."""
        casefile_id = await casefile_of(self._store, self._memory, session_id)
        if casefile_id is None:
            return []
        parent = at.session(casefile_id, session_id)
        query = Query("events", parent, order=(("seq", "asc"),), after=(after,))
        found = await walk(self._store, [query], accept_all, limit, by=("seq",))
        bodies = await asyncio.gather(*(self._body(one.fields) for one in found))
        return [
            (row["seq"], row["header"], row["hash"], row["commitment"], row["salt"], body, row["blob"])
            for row, body in zip((one.fields for one in found), bodies, strict=True)
        ]

    async def conversation(self, session_id: str) -> str | None:
        """The blob of the session's newest conversation snapshot."""
        found = await self._store.one(at.conversation(session_id))
        return found.fields["blob"] if found else None

    async def _with_text(
        self,
        queries: Sequence[Query],
        filters: "_Filters",
        text: str,
        limit: int,
        by: Sequence[str] = ("seq",),
    ) -> Sequence[StoredFact]:
        """Facts with a text in inputs or outputs: Firestore does not look into them, so all are looked at here."""
        needle = _lowered(text.encode())

        async def has_it(row: Fields) -> bool:
            asked = await self._asked(row)
            bodies = [await self._body(row), await self._body(asked) if asked else None]
            return any(needle in _lowered(body) for body in bodies if body is not None)

        filters.judges.append(has_it)
        return await self.stored(await walk(self._store, queries, filters.accept, limit, by=by))

    async def _asked(self, row: Fields) -> Fields | None:
        if row["started_seq"] is None:
            return None
        found = await self._store.one(at.event(row["casefile_id"], row["session_id"], row["started_seq"]))
        return found.fields if found else None

    async def stored(self, found: Sequence[StoredDocument], *, payloads: bool = True) -> list[StoredFact]:
        """Facts out of their documents; without `payloads`, these may hold no more than the header's fields."""
        rows = [one.fields for one in found]
        if not payloads:
            await self._learn_names({row["actor"] for row in rows})
            return [StoredFact(*self._head(row), None, None, None, 0) for row in rows]
        starts = {
            at.event(row["casefile_id"], row["session_id"], row["started_seq"])
            for row in rows
            if row["started_seq"] is not None
        }
        known = {one.path: one for one in found}
        asked = known | await self._store.get(starts - known.keys())
        await self._learn_names({row["actor"] for row in rows})
        return list(await asyncio.gather(*(self._fact(row, asked) for row in rows)))

    async def _fact(self, row: Fields, asked: Mapping[str, StoredDocument]) -> StoredFact:
        inputs: tuple[Any, ...] = (None, None, 0)
        if row["started_seq"] is not None:
            started = asked.get(at.event(row["casefile_id"], row["session_id"], row["started_seq"]))
            if started is not None:
                s = started.fields
                inputs = (await self._body(s), s["blob"], s["size"])
        body = await self._body(row)
        return StoredFact(*self._head(row), row["salt"], body, row["blob"], row["size"], *inputs)

    def _head(self, row: Fields) -> tuple[str, int, int, bytes, bytes, str | None]:
        name = self._names.get(row["actor"])
        return row["session_id"], row["seq"], row["at_us"], row["header"], row["hash"], name

    async def _body(self, row: Fields) -> bytes | None:
        if not row["chunks"]:
            return row["body"]
        return await chunked(self._store, row["casefile_id"], row["commitment"].hex(), row["chunks"])

    async def _learn_names(self, actors: set[str]) -> None:
        if unknown := [at.pseudonym(actor) for actor in actors - self._names.keys()]:
            found = await self._store.get(unknown)
            self._names.update({path.partition("/")[2]: one.fields["user_id"] for path, one in found.items()})

    async def _filters(self, wanted: EventFilter) -> "_Filters":
        equal: dict[str, Any] = {
            "operation_type": wanted.operation_type,
            "operation_name": wanted.operation_name,
            "parent_event_id": wanted.parent_event_id,
            "request_id": wanted.request_id,
        }
        kinds = {kind.value for kind in wanted.kinds}
        if isinstance(wanted, EventPage) and wanted.view == "operations":
            equal["is_terminal"] = True
        if len(kinds) == 1:
            equal["kind"] = next(iter(kinds))
        if wanted.actor:
            account = await self._store.one(at.account(wanted.actor))
            equal["actor"] = account.fields["pseudonym"] if account else "nobody"
        given = {name: one for name, one in equal.items() if one}
        return _Filters(given, kinds, wanted.after, wanted.before, [])


def _seq_beyond(session_id: str, order: str, beyond: tuple[int, str, int]) -> int:
    """The number in this session behind which a walk by time, session and number goes on at the instant it has reached."""
    _, reached, seq = beyond
    if session_id == reached:
        return seq
    is_behind = session_id > reached if order == "asc" else session_id < reached
    return 0 if is_behind == (order == "asc") else 2**62


@dataclass(slots=True)
class _Filters:
    """What is asked of facts. A query says as much of it as there are indexes for; all of it is judged here."""

    equal: dict[str, Any]
    kinds: set[str]
    after: datetime | None
    before: datetime | None
    judges: list[Any]

    def where(self, names: Collection[str] | None = None) -> tuple[tuple[str, str, Any], ...]:
        """As a query says it."""
        return tuple((n, "==", one) for n, one in self.equal.items() if names is None or n in names)

    async def accept(self, row: Fields) -> bool:
        if any(row[name] != given for name, given in self.equal.items()):
            return False
        if self.kinds and row["kind"] not in self.kinds:
            return False
        if self.after is not None and row["at_us"] < to_us(self.after):
            return False
        if self.before is not None and row["at_us"] >= to_us(self.before):
            return False
        return all([await judge(row) for judge in self.judges])


async def accept_all(row: Fields) -> bool:
    """Every document will do."""
    return True


def _lowered(data: bytes) -> bytes:
    # Letters of ASCII in any case; all others as they are, as in the other stores.
    return data.lower()
