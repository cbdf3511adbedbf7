"""`casekeeper casefile …`: casefiles and who may enter them."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from casekeeper.cli.command import client_command
from casekeeper.cli.output import Column, Output, when

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper

casefile = typer.Typer(help="Casefiles and who may enter them.", no_args_is_help=True, rich_markup_mode=None)

CasefileId = Annotated[
    str, typer.Argument(metavar="CASEFILE", help="Id of the casefile, cf_…", show_default=False)
]
UserId = Annotated[
    str, typer.Argument(metavar="USER", help="User id, like an e-mail address.", show_default=False)
]


class GrantedRole(StrEnum):
    """Roles that can be granted; an owner is made by transfer."""

    viewer = "viewer"
    editor = "editor"
    admin = "admin"


class StatusChoice(StrEnum):
    """Which casefiles to list."""

    active = "active"
    archived = "archived"


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.add_typer(casefile, name="casefile")


@client_command(casefile, "create")
async def create(
    ck: "Casekeeper",
    out: Output,
    title: Annotated[str, typer.Argument(help="Title of the casefile.", show_default=False)],
    description: Annotated[str, typer.Option(help="What it is about.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
) -> None:
    """Make a casefile; you become its owner. Prints its id."""
    made = await ck.casefiles.create(title, description=description or None, tags=tag)
    out.answer(made, made.casefile_id)
    out.remark(f"{made.owner} owns it.")


@client_command(casefile, "list")
async def list_(
    ck: "Casekeeper",
    out: Output,
    status: Annotated[StatusChoice | None, typer.Option(help="Only these.", show_default=False)] = None,
) -> None:
    """List the casefiles of which you are a member, newest first."""
    found = [c async for c in ck.casefiles.each(status=status.value if status else None)]
    columns = (
        Column("CASEFILE", fixed=True),
        Column("ROLE", fixed=True),
        Column("CREATED", fixed=True),
        Column("TITLE"),
    )
    out.rows(
        found,
        columns,
        lambda c: (
            c.casefile_id,
            c.user_permission,
            when(c.created_at),
            c.title + (" (archived)" if c.status == "archived" else ""),
        ),
        "No casefiles yet. Make one with: casekeeper casefile create TITLE",
    )


@client_command(casefile, "show")
async def show(ck: "Casekeeper", out: Output, casefile_id: CasefileId) -> None:
    """Show a casefile and its members."""
    from rich.text import Text

    found = await ck.casefiles.get(casefile_id)
    is_member = found.user_permission != "public"
    grants = [g async for g in ck.permissions.each(casefile_id)] if is_member else []
    if out.as_json:
        out.json({"casefile": found, "grants": grants})
        return
    out.print(Text(found.title, style="bold"))
    if found.description:
        out.print(Text(found.description))
    facts = [
        f"{found.casefile_id} · {found.status} · version {found.version} · created {when(found.created_at)}"
    ]
    facts.append(
        f"you are {found.user_permission}" + (f" · tags {', '.join(found.tags)}" if found.tags else "")
    )
    if found.record_session_id:
        facts.append(f"record session {found.record_session_id}")
    out.print(Text("\n".join(facts)))
    if grants:
        out.console.print()
        columns = (Column("USER"), Column("ROLE", fixed=True), Column("UNTIL", fixed=True), Column("BY"))
        out.rows(
            grants, columns, lambda g: (g.user_id, g.role or "", when(g.expires_at), g.granted_by or ""), ""
        )


@client_command(casefile, "grant")
async def grant(
    ck: "Casekeeper",
    out: Output,
    casefile_id: CasefileId,
    user_id: UserId,
    role: Annotated[GrantedRole, typer.Argument(help="What they may do.", show_default=False)],
    until: Annotated[
        datetime | None, typer.Option(help="When the role ends, local time.", show_default=False)
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for the record.", show_default=False)] = None,
) -> None:
    """Give a user a role, or change the one they have."""
    expires_at = until.astimezone() if until else None
    granted = await ck.permissions.grant(casefile_id, user_id, role.value, expires_at=expires_at, note=note)
    ends = f" until {when(granted.expires_at)}" if granted.expires_at else ""
    out.receipt(granted, f"{granted.user_id} is {granted.role} of {casefile_id}{ends}.")


@client_command(casefile, "revoke")
async def revoke(ck: "Casekeeper", out: Output, casefile_id: CasefileId, user_id: UserId) -> None:
    """Take a user's role away; what they run there is stopped."""
    revoked = await ck.permissions.revoke(casefile_id, user_id)
    out.receipt(revoked, f"{revoked.user_id} has no role in {casefile_id} any more.")


@client_command(casefile, "delete")
async def delete(
    ck: "Casekeeper",
    out: Output,
    casefile_id: CasefileId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a casefile: for everybody, for good."""
    found = await ck.casefiles.get(casefile_id)
    if not yes:
        typer.confirm(
            f"Delete “{found.title}” ({casefile_id}) for everybody, for good?", abort=True, err=True
        )
    out.answer(await ck.casefiles.delete(casefile_id), f"{casefile_id} is deleted.")
