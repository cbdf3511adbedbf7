"""Things to put into a store, as the rooms would, with as little to say as a test needs."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import to_json

from casekeeper.acl import Grant, Role
from casekeeper.acl_feed import ANY
from casekeeper.casefiles.casefile import Casefile, Fence, PutCasefile, PutGrant
from casekeeper.documents.document import AddDocument, Document
from casekeeper.identity.accounts import Account, PutAccount, StoredAccount
from casekeeper.ids import new_document_id, new_event_id, new_pseudonym, new_session_id
from casekeeper.journal.commits import Commit, PermissionChanged
from casekeeper.journal.events import Fact, Kind, Payload, Sealed, StoredFact
from casekeeper.journal.operations import CloseOperation, OpenOperation, OperationIsOpen, operation_of
from casekeeper.sessions.reading import EventPage
from casekeeper.sessions.session import PutSession, SessionIsOpen, UnifiedSession
from casekeeper.storage.store import Storage
from casekeeper.verify import Report, verify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
OWNER, GUEST = "owner@example.com", "guest@example.com"


@dataclass
class Shelf:
    """A store with a casefile `cf`, two accounts and one session of the owner's."""

    storage: Storage
    casefile_id: str = "cf_260301_abc123"
    session_id: str = ""
    pseudonyms: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    async def filled(cls, storage: Storage) -> "Shelf":
        """A shelf with the least that there must be."""
        shelf = cls(storage)
        for user_id in (OWNER, GUEST):
            await shelf.account(user_id)
        await shelf.casefile(shelf.casefile_id)
        shelf.session_id = (await shelf.session()).session_id
        return shelf

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """Commit."""
        return await self.storage.commits.commit(commit)

    async def account(self, user_id: str, *, active: bool = True) -> None:
        """Put an account, or change it."""
        pseudonym = self.pseudonyms.setdefault(user_id, new_pseudonym())
        account = Account(user_id=user_id, is_active=active, created_at=NOW, pseudonym=pseudonym)
        await self.commit(Commit(records=(PutAccount(StoredAccount(account, None)),)))

    async def casefile(self, casefile_id: str, **fields: Any) -> Casefile:
        """Put a casefile that the owner owns."""
        values: dict[str, Any] = {"title": "Rent dispute", "created_at": NOW, "updated_at": NOW, **fields}
        record = new_session_id(NOW, OWNER, casefile_id)
        made = Casefile(casefile_id=casefile_id, owner=OWNER, record_session_id=record, **values)
        await self.commit(Commit(records=(PutCasefile(made),)))
        await self.grant(OWNER, Role.OWNER, casefile_id=casefile_id)
        return made

    async def grant(
        self, user_id: str, role: Role, *, casefile_id: str | None = None, expires_at: datetime | None = None
    ) -> Grant:
        """Give a role, with its number in the feed."""
        grant = Grant(
            casefile_id=casefile_id or self.casefile_id,
            user_id=user_id,
            role=role,
            expires_at=expires_at,
            granted_by=OWNER,
            granted_at=NOW,
        )
        await self.commit(Commit(records=(PutGrant(grant), self.change(user_id, grant.casefile_id))))
        return grant

    def change(self, user_id: str = ANY, casefile_id: str = ANY) -> PermissionChanged:
        """A permission change as the feed keeps it."""
        return PermissionChanged(casefile_id, user_id, Kind.GRANTED, NOW)

    async def fence(self, user_id: str = OWNER) -> Fence:
        """What a commit of this user states now: nothing newer than this."""
        return Fence(user_id, self.casefile_id, (await self.storage.accounts.head()).number)

    def a_session(self, **fields: Any) -> UnifiedSession:
        """A session that is not stored."""
        at = fields.pop("created_at", NOW)
        values: dict[str, Any] = {"casefile_id": self.casefile_id, "user_id": OWNER, **fields}
        session_id = new_session_id(at, values["user_id"], values["casefile_id"])
        return UnifiedSession(session_id=session_id, created_at=at, last_activity_at=at, **values)

    async def session(self, **fields: Any) -> UnifiedSession:
        """A stored session with its `opened` fact."""
        session = self.a_session(**fields)
        fact = self.fact(Kind.OPENED, session.session_id, casefile_id=session.casefile_id)
        await self.commit(Commit((fact,), (), (PutSession(session),)))
        return session

    def fact(self, kind: Kind, session_id: str | None = None, body: Any = None, **fields: Any) -> Fact:
        """A fact of the owner's."""
        values: dict[str, Any] = {"started_at": NOW, "casefile_id": self.casefile_id, **fields}
        return Fact(
            session_id=session_id or self.session_id,
            event_id=values.pop("event_id", None) or new_event_id(NOW),
            kind=kind,
            actor=self.pseudonyms[OWNER],
            payload=Payload.of(to_json({"inputs": body})),
            **values,
        )

    def started(self, name: str = "noop", parent: Fact | None = None, **fields: Any) -> Fact:
        """The fact that opens an operation."""
        above = parent.event_id if parent else None
        kind, type_ = Kind.STARTED, "tool"
        return self.fact(kind, operation_type=type_, operation_name=name, parent_event_id=above, **fields)

    def opening(self, fact: Fact, *, owner: str = "this process", **row: Any) -> Commit:
        """The commit that starts an operation."""
        values: dict[str, Any] = {"user_id": OWNER, **row}
        opened = OpenOperation(
            event_id=fact.event_id,
            casefile_id=fact.casefile_id,
            session_id=fact.session_id,
            parent_event_id=fact.parent_event_id,
            root_event_id=fact.parent_event_id or fact.event_id,
            actor=fact.actor,
            operation_type="tool",
            operation_name=fact.operation_name or "",
            request_id=fact.request_id,
            owner=owner,
            started_at=fact.started_at,
            **values,
        )
        return Commit((fact,), (SessionIsOpen(fact.session_id),), (opened,))

    def ending(self, fact: Fact, seq: int, kind: Kind = Kind.SUCCEEDED) -> Commit:
        """The commit that ends it."""
        ended = replace(
            fact,
            kind=kind,
            ended_at=LATER,
            payload=Payload.of(b'{"outputs":{}}'),
            started_seq=seq,
            inputs_commit=fact.payload.commit.hex(),
        )
        return Commit((ended,), (OperationIsOpen(operation_of(fact)),), (CloseOperation(operation_of(fact)),))

    async def operation(self, name: str = "noop", kind: Kind = Kind.SUCCEEDED, **fields: Any) -> Fact:
        """An operation that started and ended."""
        fact = self.started(name, **fields)
        [sealed] = await self.commit(self.opening(fact))
        await self.commit(self.ending(fact, sealed.seq, kind))
        return fact

    async def facts(self, session_id: str | None = None, **wanted: Any) -> Sequence[StoredFact]:
        """The session's facts, all of them unless something is wanted."""
        page = EventPage.model_validate({"view": "journal", **wanted})
        return await self.storage.events.facts(session_id or self.session_id, page, None, 100_000)

    async def check(self, *session_ids: str) -> Report:
        """What the verifier says of the sessions' records."""
        lines: list[bytes] = []
        for session_id in session_ids or (self.session_id,):
            for _, header, hash_, commitment, salt, body, _ in await self.storage.events.record(
                session_id, 0, 100_000
            ):
                line = {"hash": hash_.hex(), "commit": commitment.hex(), "salt": salt.hex()}
                lines.append(b'{"header":%s,%s' % (header, to_json({**line, "payload": body.decode()})[1:]))
        return verify(lines)

    def document(self, text: str, **fields: Any) -> AddDocument:
        """A document to file."""
        values: dict[str, Any] = {"kind": "mail", "title": "", "casefile_id": self.casefile_id, **fields}
        values = {"sha256": secrets.token_hex(32), **values}
        document = Document(
            document_id=new_document_id(NOW),
            size=len(text),
            created_at=NOW,
            created_by=OWNER,
            event_id="evt_1",
            source="test.mbox",
            text=text,
            **values,
        )
        return AddDocument(document, text.encode())
