"""Blobs as documents of Firestore: names, parts under its limit of 1 MiB, and leftovers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from casekeeper.clock import to_us, utc_now
from casekeeper.errors import StoreUnavailable
from casekeeper.storage.blobs.database import Content
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import CommitConflict, Firestore
from casekeeper.storage.firestore.messages import Query, StoredDocument, Write

_PAGE = 100
# So often a change that others keep overtaking is tried.
_TRIES = 8


class FirestoreParts:
    """Implements `Parts`. Parts lie among the casefile's chunks and are erased with them, should anything be left."""

    part_bytes = 900_000

    def __init__(self, store: Firestore) -> None:
        self._store = store

    async def begin(self, content: Content) -> None:
        await self._store.commit([_leftover(content, to_us(utc_now()))])

    async def add(self, content: Content, number: int, data: bytes) -> None:
        await self._store.commit([_part(content, number, data)])

    async def name(self, content: Content, name: str, number: int, last: bytes) -> None:
        path, leftover = at.blob(content.casefile_id, name), at.leftover(content.content_id)
        row = {"content_id": content.content_id, "size": content.size}
        for _ in range(_TRIES):
            found = await self._store.get([path, leftover] if number else [path])
            before = found.get(path)
            writes = [Write(path, before and before.version, row)]
            if last:
                writes.append(_part(content, number, last))
            if before is not None:
                writes.append(_leftover(_content(content.casefile_id, before), 0))
            if number:
                if leftover not in found:
                    raise StoreUnavailable("The casefile's blobs were erased meanwhile.")
                writes.append(Write(leftover, found[leftover].version))
            try:
                await self._store.commit(writes)
            except CommitConflict:
                continue
            return
        raise StoreUnavailable("Others keep writing this blob; try again in a moment.")

    async def find(self, casefile_id: str, name: str) -> Content | None:
        found = await self._store.one(at.blob(casefile_id, name))
        return None if found is None else _content(casefile_id, found)

    async def part(self, content: Content, number: int) -> bytes | None:
        found = await self._store.one(at.chunk(content.casefile_id, content.content_id, number))
        return None if found is None else found.fields["data"]

    async def forget(self, casefile_id: str, name: str | None) -> None:
        if name is not None:
            found = await self._store.one(at.blob(casefile_id, name))
            await self._forget(casefile_id, [] if found is None else [found])
            return
        page = Query("blobs", at.casefile(casefile_id), limit=_PAGE)
        while found := await self._store.query(page):
            await self._forget(casefile_id, found)

    async def abandon(self, content: Content) -> None:
        await self._store.commit([_leftover(content, 0)])

    async def leftovers(self, casefile_id: str | None, before: datetime | None) -> Sequence[Content]:
        wanted: tuple[str, str, Any] = ("casefile_id", "==", casefile_id)
        if casefile_id is None:
            wanted = ("since_us", "<", to_us(before) if before else 0)
        found = await self._store.query(Query("blob_leftovers", where=(wanted,), limit=_PAGE))
        return [Content(one.fields["casefile_id"], one.path.rpartition("/")[2]) for one in found]

    async def drop(self, content: Content) -> None:
        mine = (("content_id", "==", content.content_id),)
        page = Query("chunks", at.casefile(content.casefile_id), where=mine, limit=_PAGE, only=())
        while found := await self._store.query(page):
            await self._store.commit([Write(one.path, None, is_blind=True) for one in found])
        await self._store.commit([Write(at.leftover(content.content_id), None, is_blind=True)])

    async def _forget(self, casefile_id: str, found: Sequence[StoredDocument]) -> None:
        for one in found:
            try:
                await self._store.commit(
                    [Write(one.path, one.version), _leftover(_content(casefile_id, one), 0)]
                )
            except CommitConflict:  # replaced or forgotten just now
                continue


def _content(casefile_id: str, found: StoredDocument) -> Content:
    return Content(casefile_id, found.fields["content_id"], found.fields["size"])


def _leftover(content: Content, since_us: int) -> Write:
    row = {"casefile_id": content.casefile_id, "since_us": since_us}
    return Write(at.leftover(content.content_id), None, row, is_blind=True)


def _part(content: Content, number: int, data: bytes) -> Write:
    row = {"content_id": content.content_id, "data": data}
    return Write(at.chunk(content.casefile_id, content.content_id, number), None, row, is_blind=True)
