"""A whole data directory kept and brought back: database, keys and blobs, each file with its digest.

A backup is a folder that looks like a data directory and has `backup.json` beside. It is made aside and renamed when it
is whole, and so is what is restored: there is never half of one.
"""

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from casekeeper.clock import rfc3339
from casekeeper.storage.sql.migrating import NEWEST
from casekeeper.storage.sqlite.opening import schema_version
from casekeeper.storage.sqlite.store import connect
from casekeeper.values import value

DATABASE = "casekeeper.db"
MANIFEST = "backup.json"
FORMAT = "casekeeper backup"
VERSION = 1
# Signing keys, the cursors' secret and blobs; what a server writes down for its neighbours is not kept.
_FOLDERS = ("keys", "blobs")
_PIECE = 1024 * 1024


class BackupUnfit(Exception):
    """The backup, or the place for it, is not as it must be; nothing was left behind."""


@value
class Backup:
    """What a backup holds."""

    made_at: str
    schema: str
    epoch: str
    files: int
    bytes: int
    blobs: str = ""
    """Where the blobs are that are not in it; empty if all are."""


def back_up(data: Path, target: Path, now: datetime, blobs: str = "") -> Backup:
    """Keep a data directory in a new folder, beside a server that works on it.

    The database comes first: blobs are written before the commits that name them, so none is missing. `blobs` says where
    they are if neither in the directory nor in the database; these are not copied.

    Raises:
        BackupUnfit: The folder is there already.
        OSError: It cannot be written.
    """
    if target.exists():
        raise BackupUnfit(f"{target} exists already; a backup is made in a folder of its own")
    with _made_aside(target) as aside:
        _copy_database(data / DATABASE, aside / DATABASE)
        schema = schema_version(aside / DATABASE) or ""
        with closing(connect(aside / DATABASE, read_only=True)) as database:
            epoch = database.execute("SELECT epoch FROM acl_head").fetchone()[0]
        _as_one_file(aside / DATABASE)
        files = {DATABASE: _described(aside / DATABASE)}
        for name in _names(data):
            if (copied := _copy(data / name, aside / name)) is not None:
                files[name] = copied
        total = sum(file["size"] for file in files.values())
        backup = Backup(rfc3339(now), schema, epoch, len(files), total, blobs)
        told = {"format": FORMAT, "version": VERSION, **asdict(backup), "files": files}
        _write(aside / MANIFEST, json.dumps(told, indent=1).encode())
    return backup


def restore(source: Path, data: Path) -> Backup:
    """Make a data directory out of a backup, after every file of it was compared with its digest.

    The permission feed starts a new epoch, so that access tokens from before are refused, and refresh tokens are
    forgotten: those that were used or ended after the backup would work again.

    Raises:
        BackupUnfit: It is damaged or from a newer version, or the directory holds a store already.
        OSError: It cannot be read or written.
    """
    if data.exists() and any(data.iterdir()):
        raise BackupUnfit(f"{data} is not empty; move it away first")
    backup, files = _manifest(source)
    with _made_aside(data) as aside:
        for name, expected in files.items():
            if _copy(source / name, aside / name) != expected:
                raise BackupUnfit(f"{name} is not the file that was kept")
        _start_anew(aside / DATABASE)
        if data.exists():
            data.rmdir()
    return backup


def _start_anew(path: Path) -> None:
    with closing(connect(path)) as database:
        found = [row[0] for row in database.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise BackupUnfit(f"the database is damaged: {found[0]}")
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE acl_head SET epoch = ?", (secrets.token_hex(8),))
        database.execute("DELETE FROM refresh_tokens")
        database.execute("COMMIT")
    _as_one_file(path)


def _manifest(source: Path) -> tuple[Backup, dict[str, Any]]:
    """What the backup says of itself. Its names are paths inside it, and no others."""
    try:
        told = json.loads((source / MANIFEST).read_bytes())
        if told["format"] != FORMAT:
            raise BackupUnfit(f"{source} is no backup")
        if told["version"] > VERSION or told["schema"] > NEWEST:
            raise BackupUnfit(f"{source} was made by a newer casekeeper")
        files = dict(told.pop("files"))
        backup = Backup(
            told["made_at"],
            told["schema"],
            told["epoch"],
            len(files),
            told["bytes"],
            str(told.get("blobs", "")),
        )
    except FileNotFoundError as error:
        raise BackupUnfit(f"{source} is no backup: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupUnfit(f"{MANIFEST} cannot be read") from error
    if DATABASE not in files or not all(map(_is_inside, files)):
        raise BackupUnfit(f"{MANIFEST} names files that a backup does not have")
    return backup, files


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return name == DATABASE or (path.parts[:1] in {(f,) for f in _FOLDERS} and ".." not in path.parts)


def _names(data: Path) -> Iterator[str]:
    for folder in _FOLDERS:
        # What begins with a dot is being written.
        files = (p for p in sorted((data / folder).rglob("*")) if p.is_file() and not p.name.startswith("."))
        yield from (path.relative_to(data).as_posix() for path in files)


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's own online copy: one consistent state of the database, also under concurrent writes."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect(source, read_only=True)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)


def _as_one_file(path: Path) -> None:
    """Write the log into the database, so that the file alone is all of it, and on disk."""
    with closing(connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)


def _described(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return {"sha256": digest.hexdigest(), "size": size}


def _copy(source: Path, target: Path) -> dict[str, Any] | None:
    """Copy a file and describe what was copied; None if it was erased meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    try:
        file = source.open("rb")
    except FileNotFoundError:
        return None
    with file, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        while piece := file.read(_PIECE):
            copy.write(piece)
            digest.update(piece)
            size += len(piece)
        copy.flush()
        os.fsync(copy.fileno())
    return {"sha256": digest.hexdigest(), "size": size}


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _made_aside(target: Path) -> Generator[Path]:
    """A folder that gets its name when it is whole; what was begun is removed otherwise."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    aside.mkdir(mode=0o700)
    try:
        yield aside
        aside.rename(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
