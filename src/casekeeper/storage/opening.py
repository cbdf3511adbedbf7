"""Opens the store that an address names."""

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from casekeeper.acl_feed import Change
from casekeeper.journal.events import Sealed
from casekeeper.storage.addresses import StoreAddressInvalid
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sql.schema_version import NEWEST
from casekeeper.storage.sqlite.opening import open_embedded
from casekeeper.storage.store import Storage, nobody

_EMULATOR = re.compile(r"(emulator=[^:&]+:[0-9]+)?")


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
        StoreAddressInvalid: There is no such store (BlobsAddressInvalid: for blobs), or its library is not installed.
        DirectoryInUse: Another process holds the embedded store.
        SchemaTooNew: The store belongs to a newer version.
        StoreUnavailable: It does not answer.
    """
    limits = limits or StoreLimits()
    parts = _parts(address)
    match parts.scheme:
        case "":
            if address:
                raise StoreAddressInvalid(f"The store “{address}” has no scheme; write sqlite:///{address}.")
            opened = open_embedded(directory, announce, push, limits)
        case "sqlite":
            if parts.netloc or not parts.path.strip("/"):
                raise StoreAddressInvalid("The store's address must be sqlite:///path of a directory.")
            # sqlite:///a is a relative path, sqlite:////a an absolute one, as SQLAlchemy has it.
            opened = open_embedded(Path(parts.path[1:]), announce, push, limits)
        case "postgresql" | "postgres":
            try:
                from casekeeper.storage.postgres.opening import open_postgres
            except ModuleNotFoundError as error:
                raise StoreAddressInvalid(
                    f"PostgreSQL needs {error.name}: pip install 'casekeeper[postgres]'."
                ) from error
            opened = open_postgres(address, directory, announce, push, limits, owner, heard or push)
        case "firestore":
            _check_firestore(parts)
            try:
                from casekeeper.storage.firestore.opening import open_firestore
            except ModuleNotFoundError as error:
                raise StoreAddressInvalid(
                    f"Firestore needs {error.name}: pip install 'casekeeper[firestore]'."
                ) from error
            opened = open_firestore(address, directory, announce, push, limits, owner)
        case scheme:
            raise _unknown(scheme)
    async with opened as storage:
        yield storage


async def migrate_shared(address: str, directory: Path, limits: StoreLimits) -> bool:
    """Bring a store of several processes to this version's schema, as opening does; whether there was anything to do.

    Raises what `open_storage` does.
    """
    changed = False
    if address.startswith("postgres"):
        # Opening tells of a library that is missing.
        with suppress(ModuleNotFoundError):
            from casekeeper.storage.postgres.opening import migrate_postgres

            changed = await migrate_postgres(address, limits)
    async with open_storage(address, directory, lambda _: None, limits=limits):
        return changed


async def shared_version(address: str, limits: StoreLimits) -> tuple[str | None, str]:
    """At which schema or layout a store of several processes is, None where nothing is in it yet, and the newest.

    It changes nothing.

    Raises:
        StoreAddressInvalid: There is no such store, or its library is not installed.
        StoreUnavailable: It does not answer.
    """
    parts = _parts(address)
    try:
        match parts.scheme:
            case "postgresql" | "postgres":
                from casekeeper.storage.postgres.opening import postgres_version

                return await postgres_version(address, limits), NEWEST
            case "firestore":
                _check_firestore(parts)
                from casekeeper.storage.firestore.opening import firestore_layout

                layout, newest = await firestore_layout(address, limits)
                return None if layout is None else str(layout), str(newest)
            case scheme:
                raise _unknown(scheme)
    except ModuleNotFoundError as error:
        raise StoreAddressInvalid(f"Its library {error.name} is not installed.") from error


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        # Not its own words, which may hold the password.
        raise StoreAddressInvalid("The store's address cannot be read.") from error


def _check_firestore(parts: SplitResult) -> None:
    if not parts.netloc or parts.path.count("/") > 1:
        raise StoreAddressInvalid("The store's address must be firestore://project[/database].")
    # A slip of the pen must not lead from the emulator to what is real.
    if not _EMULATOR.fullmatch(parts.query):
        raise StoreAddressInvalid("Behind a ? the store's address may only say emulator=host:port.")


def _unknown(scheme: str) -> StoreAddressInvalid:
    return StoreAddressInvalid(
        f"The store's scheme “{scheme}” is not known; sqlite, postgresql and firestore are."
    )
