"""Opens a Firestore store: channels, the feed, the search index; and closes it again."""

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from casekeeper.acl_feed import Change
from casekeeper.errors import SchemaTooNew
from casekeeper.journal.events import Sealed
from casekeeper.storage.blobs.opening import open_blobs
from casekeeper.storage.executors import in_thread
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.blobs import FirestoreParts
from casekeeper.storage.firestore.casefiles import FirestoreCasefiles
from casekeeper.storage.firestore.client import CommitConflict, Firestore, open_channels
from casekeeper.storage.firestore.commits import FirestoreCommits
from casekeeper.storage.firestore.documents import FirestoreDocuments
from casekeeper.storage.firestore.events import FirestoreEvents
from casekeeper.storage.firestore.identities import FirestoreIdentities
from casekeeper.storage.firestore.messages import Write
from casekeeper.storage.firestore.presence import Workers
from casekeeper.storage.firestore.search import FirestoreSearch
from casekeeper.storage.firestore.sessions import FirestoreSessions
from casekeeper.storage.firestore.sweeping import FirestoreUpkeep
from casekeeper.storage.firestore.tail import FirestoreTail
from casekeeper.storage.firestore.things import FirestoreThings
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sqlite.opening import migrate
from casekeeper.storage.sqlite.store import SqliteStore
from casekeeper.storage.store import Storage

_LAYOUT = 2
_LAYOUT_PLACE = "store/layout"


@asynccontextmanager
async def open_firestore(
    address: str,
    directory: Path,
    announce: Callable[[Sequence[Sealed]], None],
    push: Callable[[Sequence[Change]], None],
    limits: StoreLimits,
    owner: str,
) -> AsyncGenerator[Storage]:
    """The store in a database, `firestore://project[/database][?emulator=host:port]`.

    Raises:
        SchemaTooNew: It belongs to a newer version.
        StoreUnavailable: It does not answer.
    """
    path = limits.search or directory / "search.db"
    await in_thread(partial(migrate, path))
    async with _reached(address, limits) as store:
        has_unstamped = await _begin(store)
        index = SqliteStore(path, lambda _: None, lambda _: None)
        search = FirestoreSearch(store, index)
        commits = FirestoreCommits(store, announce, push, search.follow, FirestoreUpkeep(store, search))
        workers = Workers(store, commits.unconfirmed)
        events = FirestoreEvents(store, commits.memory, workers)
        try:
            if owner:
                await workers.begin(owner)
            yield Storage(
                commits,
                accounts=FirestoreIdentities(store),
                casefiles=FirestoreCasefiles(store),
                sessions=FirestoreSessions(store, commits.memory),
                events=events,
                tail=FirestoreTail(store, events, has_unstamped=has_unstamped),
                documents=FirestoreDocuments(store, search),
                search=search,
                things=FirestoreThings(store),
                blobs=await open_blobs(limits, directory, FirestoreParts(store)),
                directory=directory,
                is_shared=True,
                is_our_turn=workers.sweeps,
                tidy=search.forget_erased,
                is_sweep_due=commits.unconfirmed.arose,
                now=store.now,
            )
        finally:
            await commits.close()
            await workers.close()
            await index.close()


async def firestore_layout(address: str, limits: StoreLimits) -> tuple[int | None, int]:
    """The layout that a database has, None if nothing is in it yet, and the newest.

    Raises:
        StoreUnavailable: It does not answer.
    """
    async with _reached(address, limits) as store:
        found = (await store.get([_LAYOUT_PLACE])).get(_LAYOUT_PLACE)
        return found and found.fields["version"], _LAYOUT


@asynccontextmanager
async def _reached(address: str, limits: StoreLimits) -> AsyncGenerator[Firestore]:
    parts = urlsplit(address)
    database = f"projects/{parts.netloc}/databases/{parts.path.strip('/') or '(default)'}"
    emulator = parse_qs(parts.query).get("emulator", [None])[0]
    async with open_channels(limits.channels, emulator) as channels:
        # The emulator lets this token do everything.
        yield Firestore(channels, database, token="owner" if emulator else None)


async def _begin(store: Firestore) -> bool:
    """Make what every store begins with, once; returns whether it may have facts of layout 1, which have no stamps."""
    found = await store.get([_LAYOUT_PLACE, at.FEED_HEAD])
    layout = found.get(_LAYOUT_PLACE)
    if layout is not None and layout.fields["version"] > _LAYOUT:
        raise SchemaTooNew(
            f"The store's layout is {layout.fields['version']}; this casekeeper knows {_LAYOUT} at most."
        )
    if at.FEED_HEAD not in found or layout is None:
        with suppress(CommitConflict):  # another process did it just now
            await store.commit(
                [
                    Write(_LAYOUT_PLACE, None, {"version": _LAYOUT, "began_with": _LAYOUT}),
                    Write(at.FEED_HEAD, None, {"epoch": secrets.token_hex(8), "number": 0}),
                ]
            )
        return False
    began_with = layout.fields.get("began_with", 1)
    if layout.fields["version"] < _LAYOUT:
        with suppress(CommitConflict):  # likewise
            newest = {"version": _LAYOUT, "began_with": began_with}
            await store.commit([Write(_LAYOUT_PLACE, layout.version, newest)])
    return began_with < 2
