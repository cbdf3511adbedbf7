"""How commits become durable in SQL: conditions judged, facts numbered and chained, records written.

One batch is one transaction. Its commits are judged in order, each seeing what those before it wrote, so a refused
one drops out alone before anything of it is numbered.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select

from casekeeper.acl_feed import Change
from casekeeper.casefiles.casefile import (
    CasefileIsActive,
    DeleteCasefile,
    EraseContents,
    Fence,
    PutCasefile,
)
from casekeeper.clock import to_us
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.adoption import AdoptFacts, ChainEndsAt
from casekeeper.journal.commits import Commit, Condition, PermissionChanged, Record
from casekeeper.journal.events import Sealed
from casekeeper.journal.operations import (
    NOBODY,
    AskToStop,
    CloseOperation,
    OpenOperation,
    OperationIsOpen,
    OwnedBy,
    ParkOperation,
    TakeOver,
    Wake,
)
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.journal.things import Drop, IsAt, Put, Topic
from casekeeper.sessions.session import EndSession, SessionIsIdle, SessionIsOpen
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.claims import BatchClaims
from casekeeper.storage.sql.conditions import CONDITIONS
from casekeeper.storage.sql.facts import BatchFacts
from casekeeper.storage.sql.feed import BatchFeed
from casekeeper.storage.sql.many import ByIds
from casekeeper.storage.sql.records import RECORDS
from casekeeper.storage.sql.rows import open_row
from casekeeper.storage.sql.statements import Bulk, IsInJson, Parameters, Row, Static, Tx, Writing
from casekeeper.storage.sql.things import BatchThings

_o = t.open_operations.c
_OPEN = ByIds(select(_o.event_id, _o.owner, _o.attempt), _o.event_id)
_STATUSES = ByIds(
    select(t.casefiles.c.casefile_id, t.casefiles.c.status).where(t.casefiles.c.deleted_us.is_(None)),
    t.casefiles.c.casefile_id,
)
_CLOSE = Static(delete(t.open_operations).where(IsInJson(_o.event_id, "event_ids")))
_ADD_OPEN = Bulk(t.open_operations)


@dataclass(slots=True)
class Batch:
    """The commits of one transaction. What most of them ask for is read once for all, what they add written at the end.

    `holds_feed`: the head of the permission feed is held from the beginning, or nobody else writes; otherwise it is
    taken last, and `flush` may find the batch overtaken. `changes` are there after `flush`.
    """

    tx: Tx
    holds_feed: bool = True
    changes: Sequence[Change] = ()
    _open: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    _opened: dict[str, Parameters] = field(default_factory=dict[str, Parameters])
    _closed: list[str] = field(default_factory=list[str])
    # Of casefiles that are as they were when the batch was prepared; None where there is none.
    _statuses: dict[str, str | None] = field(default_factory=dict[str, str | None])
    _facts: BatchFacts = field(default_factory=BatchFacts)
    _claims: BatchClaims = field(default_factory=BatchClaims)
    _feed: BatchFeed = field(init=False)
    _things: BatchThings = field(init=False)

    def __post_init__(self) -> None:
        self._feed = BatchFeed(self.tx, is_held=self.holds_feed)
        self._things = BatchThings(self.tx)

    def prepare(self, commits: Sequence[Commit]) -> None:
        """Read what most of these commits ask for: where sessions stand, which operations are open, and the like.

        Nobody else may write what they are about from here on, which is the caller's business.
        """
        operations: set[str] = set()
        things: list[IsAt] = []
        for commit in commits:
            for condition in commit.conditions:
                match condition:
                    case OperationIsOpen(operation) | OwnedBy(operation=operation):
                        operations.add(operation.event_id)
                    case IsAt():
                        things.append(condition)
                    case CasefileIsActive(casefile_id):
                        self._statuses[casefile_id] = None
                    case _:
                        pass
        parts = (self._claims, self._feed, self._facts)
        questions = [question for part in parts for question in part.questions(commits)]
        if operations:
            questions.append(_OPEN.question(operations, self._know_open))
        if self._statuses:
            questions.append(_STATUSES.question(self._statuses, self._statuses.update))
        if things:
            questions += self._things.questions(things)
        self.tx.ask(questions)

    def _know_open(self, rows: list[Row]) -> None:
        self._open = {event_id: (owner, attempt) for event_id, owner, attempt in rows}

    def add(self, commit: Commit) -> Sequence[Sealed]:
        """Judge one commit, which was prepared, and take it in.

        Raises:
            Refused: A condition does not hold; nothing of this commit was written.
            Superseded: Likewise, because of a race.
        """
        for condition in commit.conditions:
            refusal = condition.refusal(self._find(condition))
            if refusal is not None:
                raise refusal
        self._feed.accept(commit)
        sealed = [self._facts.seal(fact) for fact in commit.facts]
        for record in commit.records:
            self._write(record, sealed)
        return sealed

    def flush(self) -> None:
        """Write what was numbered; the transaction can be committed then.

        Raises:
            Overtaken: It must be rolled back; a batch that holds the feed is never overtaken.
        """
        self.tx.settle()
        parts = (self._claims.changes(), self._things.changes(), self._open_changes(), self._facts.changes())
        changes = [change for part in parts for change in part]
        counts, head = self.tx.write([change for change in changes if change[1]], self._feed.last)
        self._facts.check(counts)
        self.changes = self._feed.settle(head)

    def _find(self, condition: Condition) -> Any:
        """What the condition asks for: out of the batch where it knows, from the database otherwise."""
        match condition:
            case SessionIsOpen(session_id):
                return self._facts.head(session_id).closed_us
            case ChainEndsAt():
                head = self._facts.head(condition.session_id)
                return head.seq, head.hash
            case OperationIsOpen(operation) | OwnedBy(operation=operation):
                return self._open.get(operation.event_id)
            case Fence() | AccountStands():
                return self._feed.newest(condition)
            case Claim():
                return self._claims.live(condition)
            case IsAt():
                return self._things.find(condition)
            case CasefileIsActive(casefile_id) if casefile_id in self._statuses:
                return self._statuses[casefile_id]
            case SessionIsIdle():
                self._flush_open()
            case _:
                pass
        return CONDITIONS[type(condition)](self.tx, condition)

    def _write(self, record: Record, sealed: Sequence[Sealed]) -> None:
        match record:
            case OpenOperation():
                self._opened[record.event_id] = open_row(record, sealed[-1])
                self._open[record.event_id] = record.owner, record.attempt
            case CloseOperation(operation):
                self._open.pop(operation.event_id, None)
                if self._opened.pop(operation.event_id, None) is None:
                    self._closed.append(operation.event_id)
            case ParkOperation() | TakeOver() | Wake() | AskToStop():
                self._flush_open()
                self._hand_on(record)
                RECORDS[type(record)](self.tx, record)
            case PermissionChanged():
                self._feed.add(record)
            case Claim():
                self._claims.put(record)
            case ReleaseClaim():
                self._claims.release(record)
            case Put():
                self._things.put(record)
            case Drop():
                self._things.drop(record)
            case EraseContents(casefile_id):
                self._things.forget(Topic("casefile", casefile_id))
                RECORDS[type(record)](self.tx, record)
            case AdoptFacts():
                self._facts.adopt(record)
            case EndSession(session_id, at):
                self._facts.head(session_id).closed_us = to_us(at)
                RECORDS[type(record)](self.tx, record)
            case PutCasefile() | DeleteCasefile():
                self._statuses.clear()
                RECORDS[type(record)](self.tx, record)
            case _:
                RECORDS[type(record)](self.tx, record)

    def _hand_on(self, record: Record) -> None:
        """Who has it from now on, for those commits of the batch that are judged after this one."""
        match record:
            case ParkOperation(operation):
                _, attempt = self._open[operation.event_id]
                self._open[operation.event_id] = NOBODY, attempt
            case TakeOver(operation, owner):
                _, attempt = self._open[operation.event_id]
                self._open[operation.event_id] = owner, attempt + 1
            case _:
                pass

    def _flush_open(self) -> None:
        self.tx.write([change for change in self._open_changes() if change[1]])

    def _open_changes(self) -> Sequence[Writing]:
        closed = [{"event_ids": _json(self._closed)}] if self._closed else ()
        opened = list(self._opened.values())
        self._closed.clear()
        self._opened.clear()
        return (_CLOSE, closed), (_ADD_OPEN, opened)


def _json(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))
