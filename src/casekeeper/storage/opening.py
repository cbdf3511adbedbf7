"""Opens the store that an address names."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from casekeeper.acl_feed import Change
from casekeeper.journal.events import Sealed
from casekeeper.storage.addresses import store_parts
from casekeeper.storage.executors import in_thread
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sql.migrating import NEWEST
from casekeeper.storage.sqlite.opening import open_embedded, usable
from casekeeper.storage.store import Storage, nobody


@asynccontextmanager
async def open_storage(
    address: str,
    directory: Path,
    announce: Callable[[Sequence[Sealed]], None],
    push: Callable[[Sequence[Change]], None] = nobody,
    limits: StoreLimits | None = None,
    owner: str = "",
    heard: Callable[[Sequence[Change]], None] | None = None,
) -> AsyncGenerator[Storage]:
    """The store at an address (`sqlite:///path`, `postgresql://…`, `firestore://…`; empty is SQLite in the directory itself).

    Its blobs are where `limits` say. `owner` is this process, by whose name others know whose operations run.

    Facts are announced and permission changes pushed when they are on disk, before their commits are answered. Where the
    store itself tells what other processes changed, `heard` is called (or `push`, without it).

    Raises:
        CannotStart: There is no such store or place for blobs, its library is not installed, another process holds its
            directory, which cannot be used, or it belongs to a newer version.
        StoreUnavailable: It does not answer.
    """
    limits = limits or StoreLimits()
    parts = store_parts(address)
    with usable(directory):
        await in_thread(partial(directory.mkdir, parents=True, exist_ok=True, mode=0o700))
    match parts.scheme:
        case "postgresql":
            from casekeeper.storage.postgres.opening import open_postgres

            opened = open_postgres(address, directory, announce, push, limits, owner, heard or push)
        case "firestore":
            from casekeeper.storage.firestore.opening import open_firestore

            opened = open_firestore(address, directory, announce, push, limits, owner)
        case "sqlite":
            # sqlite:///a is a relative path, sqlite:////a an absolute one, as SQLAlchemy has it.
            opened = open_embedded(Path(parts.path[1:]), announce, push, limits)
        case _:
            opened = open_embedded(directory, announce, push, limits)
    async with opened as storage:
        yield storage


async def migrate_shared(address: str, directory: Path, limits: StoreLimits) -> bool:
    """Bring a store of several processes to this version's schema, as opening does; whether there was anything to do.

    Raises what `open_storage` does.
    """
    changed = False
    if store_parts(address).scheme == "postgresql":
        from casekeeper.storage.postgres.opening import migrate_postgres

        changed = await migrate_postgres(address, limits)
    async with open_storage(address, directory, lambda _: None, limits=limits):
        return changed


async def shared_version(address: str, limits: StoreLimits) -> tuple[str | None, str]:
    """At which schema or layout a store of several processes is, None where nothing is in it yet, and the newest.

    It changes nothing.

    Raises:
        SettingsInvalid: There is no such store.
        PackageUnusable: Its library is not installed.
        StoreUnavailable: It does not answer.
    """
    if store_parts(address).scheme == "postgresql":
        from casekeeper.storage.postgres.opening import postgres_version

        return await postgres_version(address, limits), NEWEST
    from casekeeper.storage.firestore.opening import firestore_layout

    layout, newest = await firestore_layout(address, limits)
    return None if layout is None else str(layout), str(newest)
