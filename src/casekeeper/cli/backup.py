"""A whole data directory: `backup` keeps it, `restore` brings it back."""

import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casekeeper.cli.command import data_command
from casekeeper.cli.exits import DATA, Stop
from casekeeper.cli.opening import existing
from casekeeper.cli.output import Output

if TYPE_CHECKING:
    from casekeeper.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    data_command(app, "backup")(backup)
    data_command(app, "restore")(restore)


async def backup(
    settings: "Settings",
    out: Output,
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")],
) -> None:
    """Keep a whole data directory: database, signing keys and blobs. A server may work on it meanwhile.

    Blobs that CASEKEEPER_BLOBS keeps in another directory or in a bucket are not in it.
    """
    from casekeeper.clock import utc_now
    from casekeeper.storage.sqlite.backup import BackupUnfit, back_up

    _must_be_embedded(settings)
    data = existing(settings)
    elsewhere = "" if settings.blobs == "database" else settings.blobs
    try:
        made = back_up(data, folder, utc_now(), elsewhere)
    except BackupUnfit as error:
        raise Stop(f"{error}.", DATA) from error
    except (OSError, sqlite3.Error) as error:
        raise Stop(f"The backup could not be made: {error}.", DATA) from error
    text = f"{folder}: {made.files} files, {made.bytes / 1024**2:.1f} MiB. It holds the signing keys: keep it safe."
    if elsewhere:
        text += f" The blobs in {elsewhere} are not in it: keep these as well, from now on."
    out.answer({"path": str(folder), **asdict(made)}, text)


async def restore(
    settings: "Settings",
    out: Output,
    folder: Annotated[Path, typer.Argument(help="The backup's folder.")],
) -> None:
    """Make a data directory out of a backup. All who were logged in log in anew."""
    from casekeeper.storage.sqlite.backup import BackupUnfit, restore

    _must_be_embedded(settings)
    try:
        kept = restore(folder, settings.data)
    except BackupUnfit as error:
        raise Stop(f"The backup was not restored: {error}.", DATA) from error
    except (OSError, sqlite3.Error) as error:
        raise Stop(f"The backup could not be restored: {error}.", DATA) from error
    text = (
        f"{settings.data} is as it was at {kept.made_at}. Tokens from before are refused. What was revoked since is "
        "valid again: look through keys and grants before a server starts."
    )
    if kept.blobs:
        text += (
            f" Its blobs are in {kept.blobs}: start it with this CASEKEEPER_BLOBS, and run casekeeper verify."
        )
    out.answer({"data": str(settings.data), **asdict(kept)}, text)


def _must_be_embedded(settings: "Settings") -> None:
    if settings.store:
        raise Stop(
            "These commands keep a data directory with its own store; for a store of its own, as CASEKEEPER_STORE names "
            "one, docs/backup.md says how.",
            DATA,
        )
