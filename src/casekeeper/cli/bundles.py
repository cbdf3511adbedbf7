"""Moving casefiles between stores: `export` into a bundle, `import-bundle` out of one. Both work on the store itself."""

import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from casekeeper.cli.command import placed_command
from casekeeper.cli.connection import Target, no_account
from casekeeper.cli.exits import CONFLICT, DATA, DENIED, NOT_FOUND, UNAVAILABLE, USAGE, Stop
from casekeeper.cli.opening import existing, opened_store, read_settings
from casekeeper.cli.output import Output

if TYPE_CHECKING:
    from casekeeper.identity.accounts import Account
    from casekeeper.storage.store import Storage


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    placed_command(app, "import-bundle")(import_bundle)


async def export_bundle(target: Target, out: Output, casefile_id: str, path: Path) -> None:
    """Write all of a casefile into a bundle, and verify it before it gets its name."""
    from casekeeper.acl import Role, may_export
    from casekeeper.bundles.exporting import Exporting
    from casekeeper.bundles.integrity import judge, must_be_intact
    from casekeeper.clock import utc_now

    async with _opened(target) as (storage, caller):
        casefile = await storage.casefiles.casefile(casefile_id)
        if casefile is None:
            raise Stop(f"There is no casefile {casefile_id} here.", NOT_FOUND)
        role = Role.OWNER if casefile.owner == caller.user_id else None
        if not may_export(role, is_operator=caller.is_operator):
            raise Stop(
                f"Only operators and its owner export a casefile; {caller.user_id} is neither.", DENIED
            )
        with _written(path) as file:
            counts = await Exporting(storage, utc_now).write(casefile_id, caller, file)
            file.seek(0)
            must_be_intact(judge(file))
    told = f"{counts.facts} facts of {counts.sessions} sessions, {counts.documents} documents"
    out.answer(
        {"path": str(path), **counts.model_dump()}, f"{path}: {told}. Check it with: casekeeper verify {path}"
    )


async def import_bundle(
    target: Target,
    out: Output,
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="OLD=NEW: who OLD was is the account NEW here; may be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Take a casefile in from a bundle: all of it, or nothing. Accounts that are missing come in inactive."""
    from casekeeper.bundles.importing import Importing
    from casekeeper.clock import utc_now

    people = _mapped(mapped or [])
    try:
        bundle = file.open("rb")
    except OSError as error:
        raise Stop(f"The bundle cannot be read: {error}.", USAGE) from error
    with bundle:
        async with _opened(target) as (storage, caller):
            if not caller.is_operator:
                raise Stop(f"Only operators take casefiles in; {caller.user_id} is none.", DENIED)
            done = await Importing(storage, utc_now).take(bundle, caller, people)
    value = {
        "casefile_id": done.casefile_id,
        "is_new": done.is_new,
        "new_accounts": list(done.new_accounts),
        **done.counts.model_dump(),
    }
    counts = (
        f"{done.counts.facts} facts of {done.counts.sessions} sessions, {done.counts.documents} documents"
    )
    if not done.is_new:
        out.answer(value, f"{done.casefile_id} is here already, with all that the bundle has.")
        return
    out.answer(value, f"{done.casefile_id}: {counts}.")
    if done.new_accounts:
        out.remark(f"Added, inactive until an operator says otherwise: {', '.join(done.new_accounts)}.")


def _mapped(given: list[str]) -> dict[str, str]:
    people: dict[str, str] = {}
    for text in given:
        old, _, new = text.lower().partition("=")
        if not old or not new:
            raise Stop(f"--map takes OLD=NEW, not {text!r}.", USAGE)
        people[old] = new
    return people


@asynccontextmanager
async def _opened(target: Target) -> "AsyncGenerator[tuple[Storage, Account]]":
    """The store that the settings name, and the account as which the command acts; failures as lines."""
    from casekeeper.bundles.archive import BundleUnfit
    from casekeeper.clock import utc_now
    from casekeeper.errors import CasefileExists, StoreUnavailable
    from casekeeper.execution.opening import recover_alone

    if target.url:
        raise Stop("Bundles go from store to store, not through a server: use --data.", USAGE)
    settings = read_settings(target.data)
    if not settings.store:
        existing(settings)
    try:
        async with opened_store(settings) as storage:
            user_id = (target.user or settings.operator).lower()
            stored = await storage.accounts.account(user_id)
            if stored is None or not stored.account.is_active:
                raise no_account(user_id)
            if not storage.is_shared:
                # Nobody else holds the directory, so what is open was left behind by a process that is gone.
                owner = f"{os.getpid()}-{secrets.token_hex(6)}"
                await recover_alone(storage.commits, storage.events, storage.blobs, utc_now, owner)
            yield storage, stored.account
    except BundleUnfit as error:
        raise Stop(f"The bundle does not do: {error}.", DATA) from error
    except CasefileExists as error:
        raise Stop(error.detail, CONFLICT) from error
    except StoreUnavailable as error:
        raise Stop(
            f"{error.detail.rstrip('.')}; nothing has changed that anybody sees.", UNAVAILABLE
        ) from error
    except (OSError, sqlite3.Error) as error:
        raise Stop(f"The store in {settings.data} cannot be used: {error}.", DATA) from error


@contextmanager
def _written(path: Path) -> Generator[BinaryIO]:
    """A file that appears when it is whole and on disk; it can be read back before."""
    aside = path.with_name(f".{path.name}.new")
    try:
        # It holds everything: for its owner alone.
        with open(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error}.", DATA) from error
    finally:
        aside.unlink(missing_ok=True)
