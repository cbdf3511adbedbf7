"""Where records and documents are read: a data directory, a shared store, or a server that asks for permission."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from casekeeper.cli.connection import Target, connected
from casekeeper.cli.opening import existing, opened_store, read_settings
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.cli.readonly import StoredHead
    from casekeeper.client import Casekeeper
    from casekeeper.documents.checking import Condition
    from casekeeper.documents.document import DocumentSummary
    from casekeeper.storage.store import Storage

_PAGE = 200


class Records(Protocol):
    """Where record lines come from."""

    async def heads(self, casefiles: Sequence[str], sessions: Sequence[str]) -> "list[StoredHead]":
        """The sessions of these casefiles and these sessions; all that there are where none is named."""
        ...

    def lines(self, head: "StoredHead") -> AsyncGenerator[bytes]:
        """The record lines of a session."""
        ...

    def documents(
        self, casefiles: Sequence[str]
    ) -> "AsyncGenerator[tuple[DocumentSummary, Condition]] | None":
        """The documents of these casefiles, of all where none is named, and whether their bytes are whole.

        None where that cannot be told: through a server, every look at raw bytes would be a fact.
        """
        ...


@value
class _ServerRecords:
    """The records that a caller may read."""

    ck: "Casekeeper"

    async def heads(self, casefiles: Sequence[str], sessions: Sequence[str]) -> "list[StoredHead]":
        from casekeeper.cli.readonly import StoredHead

        wanted = {s: await self.ck.sessions.get(s, include_events=False) for s in sessions}
        found: dict[str, Any] = {**wanted}
        if casefiles or not sessions:
            places = [await self.ck.casefiles.get(c) for c in casefiles] or [
                c async for c in self.ck.casefiles.each()
            ]
            for place in places:
                if place.record_session_id:
                    record = place.record_session_id
                    found[record] = await self.ck.sessions.get(record, include_events=False)
                async for session in self.ck.sessions.each(casefile_id=place.casefile_id):
                    found[session.session_id] = session
        return [
            StoredHead(s.casefile_id, s.session_id, s.head.seq, s.head.hash) for s in found.values() if s.head
        ]

    def lines(self, head: "StoredHead") -> AsyncGenerator[bytes]:
        return self.ck.record(head.session_id)

    def documents(self, casefiles: Sequence[str]) -> None:
        return None


class _SharedRecords:
    """All records of a store that several processes share, for whoever has its address: no permission is asked."""

    def __init__(self, storage: "Storage") -> None:
        from casekeeper.sessions.recording import Recording

        self._storage = storage
        # `of_session` asks nobody for permission, so there is no manager to give.
        self._recording = Recording(storage.events, storage.blobs, cast(Any, None))

    async def heads(self, casefiles: Sequence[str], sessions: Sequence[str]) -> "list[StoredHead]":
        from casekeeper.cli.readonly import StoredHead
        from casekeeper.clock import to_us, utc_now
        from casekeeper.sessions.session import SessionFilter

        storage = self._storage
        found = [await storage.sessions.session(session_id) for session_id in sessions]
        for casefile_id in casefiles if casefiles or sessions else await self._casefiles():
            casefile = await storage.casefiles.casefile(casefile_id)
            if casefile is None or casefile.record_session_id is None:
                continue
            found.append(await storage.sessions.session(casefile.record_session_id))
            wanted, before = SessionFilter(casefile_id=casefile_id), None
            # The owner sees every session of the casefile.
            while page := await storage.sessions.sessions_seen_by(
                casefile.owner, utc_now(), wanted, before, _PAGE
            ):
                found += page
                before = (to_us(page[-1].created_at), page[-1].session_id)
        return [
            StoredHead(s.casefile_id, s.session_id, s.head.seq, s.head.hash) for s in found if s and s.head
        ]

    def lines(self, head: "StoredHead") -> AsyncGenerator[bytes]:
        return cast("AsyncGenerator[bytes]", self._recording.of_session(head.casefile_id, head.session_id))

    async def documents(
        self, casefiles: Sequence[str]
    ) -> "AsyncGenerator[tuple[DocumentSummary, Condition]]":
        from casekeeper.documents.checking import checked

        for casefile_id in casefiles or await self._casefiles():
            async for one in checked(self._storage.documents, self._storage.blobs, casefile_id):
                yield one

    async def _casefiles(self) -> list[str]:
        ids: list[str] = []
        while page := await self._storage.casefiles.casefile_ids(ids[-1] if ids else "", _PAGE):
            ids += page
        return ids


@asynccontextmanager
async def records_of(target: Target) -> AsyncGenerator[Records]:
    """The store's own records, unless a server or a user is named whose permissions count."""
    if target.user or target.login():
        async with connected(target) as ck:
            yield _ServerRecords(ck)
        return
    settings = read_settings(target.data)
    if settings.is_shared:
        async with opened_store(settings) as storage:
            yield _SharedRecords(storage)
        return
    data = existing(settings)
    from casekeeper.cli.readonly import ReadOnly, StoredRecords, blobs_of

    with ReadOnly(data) as reads:
        yield StoredRecords(reads, await blobs_of(settings, reads))
