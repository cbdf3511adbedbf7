"""Exports a casefile of any store into a bundle, through the protocols that the rooms declare."""

import json
from collections.abc import AsyncIterator, Iterator
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from casekeeper.acl import Grant
from casekeeper.bundles.archive import ArchiveWriter, BundleUnfit
from casekeeper.bundles.contents import (
    CASEFILE,
    COUNTS,
    GRANTS,
    HEAD,
    PEOPLE,
    SESSIONS,
    BundleHeader,
    Counts,
    Person,
    record_name,
    session_json,
)
from casekeeper.casefiles.casefile import Casefile
from casekeeper.clock import Clock, to_us
from casekeeper.documents.document import DocumentSummary
from casekeeper.errors import CasefileNotFound
from casekeeper.identity.accounts import Account
from casekeeper.ids import new_event_id
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.sessions.recording import Recording
from casekeeper.sessions.session import SessionFilter, UnifiedSession
from casekeeper.storage.store import Storage

# Longer records go through a file until their size is known.
_IN_MEMORY = 16 * 1024 * 1024
_PAGE = 200
_PIECE = 1024 * 1024


class Exporting:
    """Writes bundles for whoever holds the store; no permission is asked, and the record says who it was."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        # `of_session` asks nobody for permission, so there is no manager to give.
        self._recording = Recording(storage.events, storage.blobs, cast(Any, None))

    async def write(self, casefile_id: str, caller: Account, file: BinaryIO) -> Counts:
        """Write all of the casefile; the fact that it is exported comes first, and is in it.

        Raises:
            CasefileNotFound: There is none.
            BundleUnfit: Somebody works in it meanwhile.
        """
        casefile = await self._storage.casefiles.casefile(casefile_id)
        if casefile is None or casefile.record_session_id is None:
            raise CasefileNotFound(casefile_id)
        await self._tell(casefile, casefile.record_session_id, caller)
        sessions = await self._sessions(casefile, casefile.record_session_id)
        archive = ArchiveWriter(file)
        counts = Counts(sessions=len(sessions))
        await self._lists(archive, casefile, caller, sessions, counts)
        for session in sessions:
            await self._record(archive, session, counts)
        for name in await self._conversations(sessions):
            await self._blob(archive, casefile_id, name)
            counts.conversations += 1
        async for summary in self._documents(casefile_id):
            await self._document(archive, summary, counts)
        _add(archive, COUNTS, counts.model_dump_json().encode())
        archive.finish()
        if await self._sessions(casefile, casefile.record_session_id) != sessions:
            raise BundleUnfit("somebody worked in the casefile while it was exported; try again")
        return counts

    async def _tell(self, casefile: Casefile, session_id: str, caller: Account) -> None:
        now = self._clock()
        fact = Fact(
            casefile_id=casefile.casefile_id,
            session_id=session_id,
            event_id=new_event_id(now),
            kind=Kind.EXPORTED,
            actor=caller.pseudonym,
            started_at=now,
            payload=Payload.of_fields(inputs={"format": "bundle"}),
        )
        await self._storage.commits.commit(Commit((fact,)))

    async def _sessions(self, casefile: Casefile, record_session_id: str) -> list[UnifiedSession]:
        """All sessions as they stand, the casefile's own first."""
        store, wanted = self._storage.sessions, SessionFilter(casefile_id=casefile.casefile_id)
        own = await store.session(record_session_id)
        if own is None:
            raise CasefileNotFound(casefile.casefile_id)
        found, before = [own], None
        # The owner sees every session of the casefile.
        while page := await store.sessions_seen_by(casefile.owner, self._clock(), wanted, before, _PAGE):
            found += page
            before = (to_us(page[-1].created_at), page[-1].session_id)
        return found

    async def _lists(
        self,
        archive: ArchiveWriter,
        casefile: Casefile,
        caller: Account,
        sessions: list[UnifiedSession],
        counts: Counts,
    ) -> None:
        grants = await self._grants(casefile.casefile_id)
        head = BundleHeader(
            casefile_id=casefile.casefile_id, exported_at=self._clock(), exported_by=caller.pseudonym
        )
        _add(archive, HEAD, head.model_dump_json().encode())
        _add(archive, CASEFILE, casefile.model_dump_json().encode())
        named = {casefile.owner, *(s.user_id for s in sessions)}
        for grant in grants:
            named |= {grant.user_id, grant.granted_by}
        async for summary in self._documents(casefile.casefile_id):
            named.add(summary.created_by)
        actors: set[str] = set()
        for session in sessions:
            async for line in self._recording.of_session(session.casefile_id, session.session_id):
                actors.add(json.loads(line)["header"]["actor"])
        people = [p async for p in self._people(named, actors)]
        counts.people, counts.grants = len(people), len(grants)
        _add(archive, PEOPLE, _lines(person.model_dump_json().encode() for person in people))
        _add(archive, GRANTS, _lines(grant.model_dump_json().encode() for grant in grants))
        _add(archive, SESSIONS, _lines(session_json(session) for session in sessions))

    async def _grants(self, casefile_id: str) -> list[Grant]:
        found, after = list[Grant](), ""
        while page := await self._storage.casefiles.grants(casefile_id, after, _PAGE):
            found += page
            after = page[-1].user_id
        return found

    async def _people(self, user_ids: set[str], pseudonyms: set[str]) -> AsyncIterator[Person]:
        after = ""
        while page := await self._storage.accounts.accounts(after, _PAGE):
            after = page[-1].user_id
            for account in page:
                if account.user_id in user_ids or account.pseudonym in pseudonyms:
                    yield Person(**account.model_dump(include=set(Person.model_fields)))

    async def _record(self, archive: ArchiveWriter, session: UnifiedSession, counts: Counts) -> None:
        with SpooledTemporaryFile(_IN_MEMORY) as lines:
            async for line in self._recording.of_session(session.casefile_id, session.session_id):
                lines.write(line)
                counts.facts += 1
            size = lines.tell()
            lines.seek(0)
            archive.add(record_name(session.session_id), size, _pieces(cast(BinaryIO, lines)))

    async def _conversations(self, sessions: list[UnifiedSession]) -> list[str]:
        names = [await self._storage.events.conversation(session.session_id) for session in sessions]
        return sorted({name for name in names if name})

    async def _blob(self, archive: ArchiveWriter, casefile_id: str, name: str) -> None:
        data = await self._storage.blobs.get(casefile_id, name)
        if data is None:
            raise BundleUnfit(f"the blob {name} is missing")
        archive.add(f"conversations/{name}", len(data), (data,))

    async def _documents(self, casefile_id: str) -> AsyncIterator[DocumentSummary]:
        before = None
        while page := await self._storage.documents.documents(casefile_id, None, before, _PAGE):
            before = (to_us(page[-1].created_at), page[-1].document_id)
            for summary in page:
                yield summary

    async def _document(self, archive: ArchiveWriter, summary: DocumentSummary, counts: Counts) -> None:
        casefile_id, document_id = summary.casefile_id, summary.document_id
        document = await self._storage.documents.document(casefile_id, document_id)
        if document is None:
            raise BundleUnfit(f"{document_id} was deleted while it was exported; try again")
        _add(archive, f"documents/{document_id}.json", document.model_dump_json().encode())
        raw = await self._storage.documents.raw(casefile_id, document_id)
        name = f"documents/{document_id}.raw"
        if raw is not None:
            archive.add(name, len(raw), (raw,))
        else:
            try:
                with await self._storage.blobs.open(casefile_id, document.document_id) as blob:
                    archive.add(name, document.size, _pieces(blob))
            except FileNotFoundError as error:
                raise BundleUnfit(f"the bytes of {document_id} are missing") from error
        counts.documents += 1
        counts.bytes += document.size


def _add(archive: ArchiveWriter, name: str, content: bytes) -> None:
    archive.add(name, len(content), (content,))


def _lines(items: Iterator[bytes]) -> bytes:
    return b"".join(item + b"\n" for item in items)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
