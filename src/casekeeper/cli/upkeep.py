"""Maintenance of a store: `doctor`, `migrate`, `reindex`, `config show`."""

import json
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from casekeeper.cli.command import data_command
from casekeeper.cli.exits import DATA, UNHEALTHY, Stop
from casekeeper.cli.opening import DATABASE, holder, locked
from casekeeper.cli.output import Column, Output
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.settings import Settings

config = typer.Typer(help="Settings.", no_args_is_help=True, rich_markup_mode=None)

# Below this a busy server has minutes left.
_LITTLE_SPACE = 1024**3


@value
class Check:
    """One thing that doctor looked at."""

    name: str
    state: Literal["ok", "warning", "wrong"]
    detail: str


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.add_typer(config, name="config")
    data_command(app, "doctor")(doctor)
    data_command(app, "migrate")(migrate)
    data_command(app, "reindex")(reindex)


async def doctor(settings: "Settings", out: Output) -> None:
    """Check a data directory and this machine; changes nothing."""
    shared = settings.is_shared
    checks = [*_machine(), _policies(settings), *_directory(settings.data, shared)]
    if shared:
        checks.append(await _shared_store(settings))
    if _place(settings.data, shared).exists():
        checks.append(await _blobs(settings))
    if out.as_json:
        out.json(checks)
    else:
        marks = {"ok": "✓", "warning": "!", "wrong": "✗"}
        for check in checks:
            style = {"ok": None, "warning": "yellow", "wrong": "bold red"}[check.state]
            line = f"{marks[check.state]} {check.name}: {check.detail}"
            out.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    wrong = [check.name for check in checks if check.state == "wrong"]
    if wrong:
        raise Stop(f"Not well: {', '.join(wrong)}.", UNHEALTHY)


async def migrate(settings: "Settings", out: Output) -> None:
    """Bring the store to this version's schema. Servers do it by themselves when they start."""
    from casekeeper.storage.sql.migrating import NEWEST
    from casekeeper.storage.sqlite.opening import migrate as bring_up

    if settings.is_shared:
        from casekeeper.storage.opening import migrate_shared

        changed = await migrate_shared(settings.store, settings.data, settings.store_limits)
    else:
        with locked(settings) as database:
            changed = bring_up(database)
    text = f"Migrated to schema {NEWEST}." if changed else f"Nothing to do: the schema is at {NEWEST}."
    if settings.store.startswith("firestore"):
        text = "Nothing to do: Firestore has no schema, and the store is ready."
    out.answer({"schema": NEWEST, "changed": changed}, text)


async def reindex(settings: "Settings", out: Output) -> None:
    """Make the search index anew from the documents. It is needed only if `doctor` finds a fault in it."""
    from casekeeper.storage.sqlite.opening import rebuild_search

    if settings.is_shared:
        raise Stop(
            "This is for the embedded store. PostgreSQL keeps its index by itself; beside Firestore, delete the file "
            "that CASEKEEPER_SEARCH names (search.db in the data directory) while its server is stopped.",
            DATA,
        )
    with locked(settings) as database:
        documents = rebuild_search(database)
    out.answer({"documents": documents}, f"Indexed {documents:,} documents.")


@data_command(config, "show")
async def show(settings: "Settings", out: Output) -> None:
    """Show all settings as a server started here would have them; secrets are masked."""
    from casekeeper.settings import masked

    values = masked(settings)
    fields = type(settings).model_fields
    if out.as_json:
        out.json(values)
        return
    columns = (Column("SETTING", fixed=True), Column("VALUE"), Column("WHAT IT IS"))
    out.rows(
        list(values.items()),
        columns,
        lambda item: (item[0], _shown(item[1]), fields[item[0]].description or ""),
        "",
    )
    out.remark("Set them as CASEKEEPER_<NAME>, or in casekeeper.toml.")


def _shown(value: Any) -> str:
    """A setting in a cell of a table; tables in the file as JSON, which the environment takes as well."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return "" if value is None else str(value)


def _machine() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()}")
    # FTS5 with trigram and strict typing of JSON functions came with 3.38.
    new_enough = sqlite3.sqlite_version_info >= (3, 38)
    yield Check("sqlite", "ok" if new_enough else "wrong", sqlite3.sqlite_version)


def _policies(settings: "Settings") -> Check:
    names = ", ".join(f"{rule.name} ({rule.then})" for rule in settings.policies)
    return Check("policies", "ok", names or "none: roles alone decide")


def _place(data: Path, shared: bool) -> Path:
    """What is there if the data directory is; a shared store's has no database in it."""
    return data if shared else data / DATABASE


def _directory(data: Path, shared: bool) -> Iterator[Check]:
    if not _place(data, shared).exists():
        yield Check("data directory", "wrong", f"there is none at {data}")
        return
    open_to_others = data.stat().st_mode & 0o077
    detail = f"{data}" + (" can be read by other users" if open_to_others else "")
    yield Check("data directory", "warning" if open_to_others else "ok", detail)
    free = shutil.disk_usage(data).free
    yield Check("disk space", "ok" if free > _LITTLE_SPACE else "wrong", f"{free / 1024**3:.1f} GiB free")
    if not shared:
        yield _lock(data)
        yield from _store(data)
    yield _keys(data / "keys")


async def _blobs(settings: "Settings") -> Check:
    from casekeeper.errors import StoreUnavailable
    from casekeeper.storage.blobs.opening import open_blobs

    usual, address = settings.data / "blobs", settings.blobs
    if address != "database" and ":" not in address:
        folder = Path(address) if address else usual
        there = folder.is_dir()
        return Check("blobs", "ok" if there else "wrong", f"{_files(folder)} files" if there else "no folder")
    try:
        # Only whether it answers; nothing is read from it.
        await open_blobs(settings.store_limits, settings.data, cast(Any, None))
    except StoreUnavailable as error:
        return Check("blobs", "wrong", str(error))
    if left := _files(usual):
        return Check("blobs", "warning", f"in {address}; {left} files in {usual} are not read")
    return Check("blobs", "ok", f"in {address}")


def _files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _lock(data: Path) -> Check:
    from casekeeper.errors import DirectoryInUse, DirectoryUnusable
    from casekeeper.storage.sqlite.store import DirectoryLock

    try:
        DirectoryLock(data).release()
    except DirectoryInUse:
        return Check("server", "ok", f"running at {holder(data)}" if holder(data) else "in use by a command")
    except DirectoryUnusable as error:
        return Check("server", "wrong", f"the lock cannot be tried: {error}")
    return Check("server", "ok", "none is running")


async def _shared_store(settings: "Settings") -> Check:
    from casekeeper.errors import StoreUnavailable
    from casekeeper.storage.opening import shared_version

    try:
        version, newest = await shared_version(settings.store, settings.store_limits)
    except StoreUnavailable as error:
        return Check("store", "wrong", str(error))
    if version is None:
        return Check("schema", "warning", "nothing is in the store yet (casekeeper migrate)")
    return _schema(version, newest)


def _schema(version: str | None, newest: str) -> Check:
    known = version == newest
    detail = f"at {version}, the newest" if known else f"at {version}; this casekeeper has {newest}"
    older = version is not None and version < newest
    hint = " (casekeeper migrate)" if older else ""
    return Check("schema", "ok" if known else "warning" if older else "wrong", detail + hint)


def _store(data: Path) -> Iterator[Check]:
    from casekeeper.cli.readonly import ReadOnly
    from casekeeper.errors import DirectoryUnusable
    from casekeeper.storage.sql.migrating import NEWEST
    from casekeeper.storage.sqlite.opening import schema_version

    try:
        yield _schema(schema_version(data / DATABASE), NEWEST)
        with ReadOnly(data) as reads:
            found = reads.check()
        size = (data / DATABASE).stat().st_size
        detail = "; ".join(found) if found else f"no fault in {size / 1024**2:.1f} MiB"
        yield Check("integrity", "wrong" if found else "ok", detail)
    except (sqlite3.Error, DirectoryUnusable) as error:
        yield Check("integrity", "wrong", f"the store cannot be read: {error}")


def _keys(keys: Path) -> Check:
    files = [*keys.glob("*.pem"), *keys.glob("*.secret")]
    if not any(path.suffix == ".pem" for path in files):
        return Check("keys", "wrong", "there is no signing key")
    # Windows keeps permissions elsewhere.
    loose = [p.name for p in files if p.stat().st_mode & 0o077] if sys.platform != "win32" else []
    if loose:
        return Check("keys", "wrong", f"other users can read {', '.join(loose)}")
    return Check(
        "keys", "ok", f"{sum(p.suffix == '.pem' for p in files)} signing keys, readable by their owner alone"
    )
