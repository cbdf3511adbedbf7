"""Blobs as rows, in SQLite and PostgreSQL: names, parts of a mebibyte, and leftovers."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table, Text, bindparam, delete, func, insert, literal, or_, select

from casekeeper.clock import to_us, utc_now
from casekeeper.errors import StoreUnavailable
from casekeeper.journal.commits import About, Commit, Commits, Condition, Record, Superseded
from casekeeper.storage.blobs.database import Content
from casekeeper.storage.sql.parts import Finds, Writes
from casekeeper.storage.sql.schema import binary, integer, metadata, string
from casekeeper.storage.sql.statements import Reads, Static, Tx, insert_into, put_into
from casekeeper.values import value

# So many parts are on their way into the store at once, whoever puts them: others' commits wait for these.
_AT_ONCE = 4
# So many are taken out in one commit.
_DROPPED = 32
_PAGE = 100

BLOBS = Table(
    "blobs",
    metadata,
    string("casefile_id", key=True),
    string("name", key=True),
    string("content_id"),
    integer("size"),
)

PARTS = Table(
    "blob_parts", metadata, string("content_id", key=True), integer("number", key=True), binary("data")
)

LEFTOVERS = Table(
    "blob_leftovers", metadata, string("content_id", key=True), string("casefile_id"), integer("since_us")
)


@value
class AddBlobPart(Record):
    """One part of a content."""

    casefile_id: str
    content_id: str
    number: int
    data: bytes

    @property
    def about(self) -> Sequence[About]:
        return _content(self.casefile_id, self.content_id)


@value
class PutLeftover(Record):
    """A content that no blob names; cleared away when `since_us` has become old, at once where it is 0."""

    casefile_id: str
    content_id: str
    since_us: int

    @property
    def about(self) -> Sequence[About]:
        return _content(self.casefile_id, self.content_id)


@value
class LeftoverIsThere(Condition):
    """The content was not cleared away."""

    content_id: str

    @property
    def about(self) -> Sequence[About]:
        return (About("blob", self.content_id, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return None if found else Superseded(self.content_id)


@value
class NameBlob(Record):
    """The name of a content, which is no leftover any more; a content that had it is one now."""

    casefile_id: str
    name: str
    content_id: str
    size: int

    @property
    def about(self) -> Sequence[About]:
        return *_content(self.casefile_id, self.content_id), _named(self.casefile_id, self.name)


@value
class ForgetBlobs(Record):
    """Makes leftovers of a casefile's blobs: of one, or of all."""

    casefile_id: str
    name: str | None

    @property
    def about(self) -> Sequence[About]:
        casefile = About("casefile", self.casefile_id, alone=self.name is None)
        return (casefile,) if self.name is None else (casefile, _named(self.casefile_id, self.name))


@value
class DropParts(Record):
    """Takes parts out from a number on; with the last of them goes the leftover."""

    casefile_id: str
    content_id: str
    start: int
    is_last: bool

    @property
    def about(self) -> Sequence[About]:
        return _content(self.casefile_id, self.content_id)


def _content(casefile_id: str, content_id: str) -> Sequence[About]:
    """A content is written by one put, beside whatever else is done in its casefile."""
    return About("casefile", casefile_id, alone=False), About("blob", content_id, alone=True)


def _named(casefile_id: str, name: str) -> About:
    return About("blob", f"{casefile_id}/{name}", alone=True)


_b, _p, _l = BLOBS.c, PARTS.c, LEFTOVERS.c
_content_id = bindparam("content_id", type_=Text())
_blob = (_b.casefile_id == bindparam("casefile_id"), _b.name == bindparam("name"))
_FIND = Static(select(_b.content_id, _b.size).where(*_blob))
_PART = Static(select(_p.data).where(_p.content_id == _content_id, _p.number == bindparam("number")))
_LAST = Static(select(func.max(_p.number)).where(_p.content_id == _content_id))
_LEFTOVER = Static(select(_l.content_id).where(_l.content_id == _content_id))
_leftovers = select(_l.casefile_id, _l.content_id).order_by(_l.content_id).limit(_PAGE)
_LEFTOVERS_OF = Static(_leftovers.where(_l.casefile_id == bindparam("casefile_id")))
_LEFTOVERS_BEFORE = Static(_leftovers.where(_l.since_us < bindparam("before")))
_ADD_PART = insert_into(PARTS)
_PUT_BLOB = put_into(BLOBS, "casefile_id", "name")
_PUT_LEFTOVER = put_into(LEFTOVERS, "content_id")
_DROP_LEFTOVER = Static(delete(LEFTOVERS).where(_l.content_id == _content_id))
_DROP_PARTS = Static(
    delete(PARTS).where(
        _p.content_id == _content_id, _p.number >= bindparam("start"), _p.number < bindparam("end")
    )
)
_one_or_all = (
    _b.casefile_id == bindparam("casefile_id"),
    or_(_b.name == bindparam("name"), literal("") == bindparam("name")),
)
_LEAVE = Static(
    insert(LEFTOVERS).from_select(
        ["content_id", "casefile_id", "since_us"],
        select(_b.content_id, _b.casefile_id, literal(0)).where(*_one_or_all),
    )
)
_FORGET = Static(delete(BLOBS).where(*_one_or_all))


def _put_leftover(tx: Tx, r: PutLeftover) -> None:
    tx.run(_PUT_LEFTOVER, content_id=r.content_id, casefile_id=r.casefile_id, since_us=r.since_us)


def _name(tx: Tx, r: NameBlob) -> None:
    _forget(tx, ForgetBlobs(r.casefile_id, r.name))
    tx.run(_DROP_LEFTOVER, content_id=r.content_id)
    tx.run(_PUT_BLOB, casefile_id=r.casefile_id, name=r.name, content_id=r.content_id, size=r.size)


def _forget(tx: Tx, r: ForgetBlobs) -> None:
    for statement in (_LEAVE, _FORGET):
        tx.run(statement, casefile_id=r.casefile_id, name=r.name or "")


def _drop(tx: Tx, r: DropParts) -> None:
    tx.run(_DROP_PARTS, content_id=r.content_id, start=r.start, end=r.start + _DROPPED)
    if r.is_last:
        tx.run(_DROP_LEFTOVER, content_id=r.content_id)


FINDS: Finds = {LeftoverIsThere: lambda tx, c: tx.one(_LEFTOVER, content_id=c.content_id)}
WRITES: Writes = {
    AddBlobPart: lambda tx, r: tx.run(_ADD_PART, content_id=r.content_id, number=r.number, data=r.data),
    PutLeftover: _put_leftover,
    NameBlob: _name,
    ForgetBlobs: _forget,
    DropParts: _drop,
}


class SqlParts:
    """Implements `Parts`."""

    part_bytes = 1024 * 1024

    def __init__(self, reads: Reads, commits: Commits) -> None:
        self._reads = reads
        self._commits = commits
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def begin(self, content: Content) -> None:
        await self._write(PutLeftover(content.casefile_id, content.content_id, to_us(utc_now())))

    async def add(self, content: Content, number: int, data: bytes) -> None:
        async with self._turns:
            await self._write(AddBlobPart(content.casefile_id, content.content_id, number, data))

    async def name(self, content: Content, name: str, number: int, last: bytes) -> None:
        casefile_id, content_id = content.casefile_id, content.content_id
        part = (AddBlobPart(casefile_id, content_id, number, last),) if last else ()
        conditions = (LeftoverIsThere(content_id),) if number else ()
        named = NameBlob(casefile_id, name, content_id, content.size)
        async with self._turns:
            try:
                await self._commits.commit(Commit((), conditions, (*part, named)))
            except Superseded as error:
                raise StoreUnavailable("The casefile's blobs were erased meanwhile.") from error

    async def find(self, casefile_id: str, name: str) -> Content | None:
        row = await self._reads.point(lambda tx: tx.one(_FIND, casefile_id=casefile_id, name=name))
        return None if row is None else Content(casefile_id, *row)

    async def part(self, content: Content, number: int) -> bytes | None:
        values = {"content_id": content.content_id, "number": number}
        row = await self._reads.scan(lambda tx: tx.one(_PART, **values))
        return None if row is None else row[0]

    async def forget(self, casefile_id: str, name: str | None) -> None:
        await self._write(ForgetBlobs(casefile_id, name))

    async def abandon(self, content: Content) -> None:
        await self._write(PutLeftover(content.casefile_id, content.content_id, 0))

    async def leftovers(self, casefile_id: str | None, before: datetime | None) -> Sequence[Content]:
        if casefile_id is not None:
            rows = await self._reads.scan(lambda tx: tx.all(_LEFTOVERS_OF, casefile_id=casefile_id))
        else:
            before_us = to_us(before) if before else 0
            rows = await self._reads.scan(lambda tx: tx.all(_LEFTOVERS_BEFORE, before=before_us))
        return [Content(*row) for row in rows]

    async def drop(self, content: Content) -> None:
        row = await self._reads.scan(lambda tx: tx.one(_LAST, content_id=content.content_id))
        last = row[0] if row and row[0] is not None else 0
        for start in range(0, last + 1, _DROPPED):
            is_last = start + _DROPPED > last
            await self._write(DropParts(content.casefile_id, content.content_id, start, is_last))

    async def _write(self, record: Record) -> None:
        await self._commits.commit(Commit(records=(record,)))
