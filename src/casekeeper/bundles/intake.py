"""Writes the parts of a validated bundle into a store, invisible at first, and finds them again after a crash."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import orjson

from casekeeper.bundles.archive import Member
from casekeeper.bundles.contents import Conversation, Counts, Lists, Part, RawDocument, SessionRecord
from casekeeper.bundles.people import People
from casekeeper.documents.document import INLINE_BYTES, AddDocument
from casekeeper.execution.payloads import INLINE_MAX
from casekeeper.journal.adoption import Adopted, AdoptFacts, ChainEndsAt, ChainHasGoneOn, adopted
from casekeeper.journal.commits import Commit
from casekeeper.sessions.adoption import AdoptSession, SessionIdIsFreeIn
from casekeeper.sessions.session import PutConversation, UnifiedSession
from casekeeper.storage.store import Storage

# What one commit takes in: so many, or so many bytes, whichever comes first. Every store takes so much at once.
_MANY, _LARGE = 200, 2 * 1024 * 1024


@dataclass(slots=True)
class Intake:
    """Takes the parts of one bundle in, in their order; `finish` when all were given."""

    storage: Storage
    casefile_id: str
    people: People
    _documents: list[AddDocument] = field(default_factory=list[AddDocument])
    _size: int = 0

    async def take(self, part: Part) -> None:
        """Write one part, as far as an earlier try did not.

        Raises:
            ChainBroken: The record does not follow from itself.
            Superseded: What an earlier try left behind is another bundle's.
        """
        match part:
            case SessionRecord(session, member):
                await self._session(replace(session, user_id=self.people.of(session.user_id)), member)
            case Conversation(name, member):
                await self.storage.blobs.put(self.casefile_id, name, member.content())
            case RawDocument():
                await self._document(part)
            case Lists() | Counts():
                pass

    async def finish(self) -> None:
        """Write what waits for company."""
        if self._documents:
            await self.storage.commits.commit(Commit(records=tuple(self._documents)))
        self._documents, self._size = [], 0

    async def _session(self, session: UnifiedSession, member: Member) -> None:
        free = SessionIdIsFreeIn(self.casefile_id, session.session_id)
        await self.storage.commits.commit(Commit(conditions=(free,), records=(AdoptSession(session),)))
        last: Adopted | None = None
        remembered: Adopted | None = None
        for lines in _portions(member.lines()):
            facts: list[Adopted] = []
            behind = last
            for line in lines:
                seq, previous = (last.seq, last.hash) if last else (0, b"")
                last = adopted(orjson.loads(line), seq + 1, previous)
                facts.append(last)
                remembered = last if last.fact.conversation else remembered
            await self._facts(session.session_id, behind, facts)
        if remembered and (blob := remembered.fact.conversation):
            put = PutConversation(session.session_id, remembered.fact.event_id, blob)
            await self.storage.commits.commit(Commit(records=(put,)))

    async def _facts(self, session_id: str, behind: Adopted | None, facts: Sequence[Adopted]) -> None:
        seq = behind.seq if behind else 0
        stored = await self.storage.events.record(session_id, seq, len(facts))
        for fact, row in zip(facts, stored, strict=False):
            if (fact.seq, fact.hash) != (row[0], row[2]):
                raise ChainHasGoneOn(session_id)
        new = [await self._kept(fact) for fact in facts[len(stored) :]]
        if not new:
            return
        last = facts[len(stored) - 1] if stored else behind
        end = ChainEndsAt(self.casefile_id, session_id, last.seq if last else 0, last.hash if last else b"")
        adopt = AdoptFacts(self.casefile_id, session_id, new)
        await self.storage.commits.commit(Commit(conditions=(end,), records=(adopt,)))

    async def _kept(self, fact: Adopted) -> Adopted:
        """The fact with its payload where a store has it: beside the header, or as a blob."""
        payload = fact.fact.payload
        if payload.body is None or payload.size <= INLINE_MAX:
            return fact
        name = payload.commit.hex()
        await self.storage.blobs.put(self.casefile_id, name, payload.body)
        return replace(fact, fact=replace(fact.fact, payload=replace(payload, body=None, blob=name)))

    async def _document(self, part: RawDocument) -> None:
        document = part.document.model_copy(update={"created_by": self.people.of(part.document.created_by)})
        raw: bytes | None = None
        if document.size > INLINE_BYTES:
            await self.storage.blobs.put_stream(
                self.casefile_id, document.document_id, _stream(part.member), document.size
            )
        else:
            raw = part.member.content()
        self._documents.append(AddDocument(document, raw))
        self._size += len(raw or b"") + len(document.text)
        if len(self._documents) >= _MANY or self._size >= _LARGE:
            await self.finish()


def _portions(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    portion: list[bytes] = []
    size = 0
    for line in lines:
        portion.append(line)
        size += len(line)
        if len(portion) >= _MANY or size >= _LARGE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


async def _stream(member: Member) -> AsyncIterator[bytes]:
    for piece in member.pieces():
        yield piece
