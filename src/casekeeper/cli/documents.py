"""`search`, `show` and `delete`: a casefile's documents on the terminal."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from casekeeper.cli.casefiles import CasefileId
from casekeeper.cli.command import client_command
from casekeeper.cli.output import Column, Output, printable, when

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.documents.document import Document
    from casekeeper.documents.search import Facet, Hit

_SENDER_MAX = 30
_FACETS_TOLD = 5


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    client_command(app, "search")(search)
    client_command(app, "show")(show)
    client_command(app, "delete")(delete)


async def search(
    ck: "Casekeeper",
    out: Output,
    casefile_id: CasefileId,
    query: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY...", help="As in Gmail's search box; see docs/search.md.", show_default=False
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: mail, note, pdf …")] = None,
    order: Annotated[str, typer.Option(help="relevance, newest or oldest.")] = "relevance",
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=200)] = 20,
    facets: Annotated[bool, typer.Option(help="Also count kinds, senders, years and labels.")] = False,
) -> None:
    """Search a casefile's documents. Put -- before a query that begins with a minus."""
    words = " ".join(query or [])
    found = await ck.documents.search(casefile_id, words, kind=kind, order=order, limit=limit, facets=facets)
    if out.as_json:
        out.json(found)
        return
    for hit in found.items:
        _tell(hit, out)
    if not found.items:
        out.remark("Nothing was found.")
    if found.has_more:
        out.remark(f"There is more; --limit shows up to 200, `newest` or `oldest` another {limit}.")
    if found.facets:
        told = found.facets
        out.remark(f"{told.total} documents in all")
        for name in ("kinds", "senders", "years", "labels"):
            out.remark(f"{name}: {_facet_line(getattr(told, name))}")


async def show(
    ck: "Casekeeper",
    out: Output,
    casefile_id: CasefileId,
    document_id: Annotated[str, typer.Argument(metavar="DOCUMENT", help="Id of the document, doc_…")],
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Write its raw bytes to stdout, as they came; the record tells of it."),
    ] = False,
) -> None:
    """Show a document with its text."""
    if raw:
        async for chunk in ck.documents.content(casefile_id, document_id):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    document = await ck.documents.get(casefile_id, document_id)
    if out.as_json:
        out.json(document)
        return
    out.rows(_header(document), (Column("", fixed=True), Column("")), lambda line: line, "")
    out.console.print(
        "\n" + "\n".join(printable(line) for line in document.text.splitlines()),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


async def delete(
    ck: "Casekeeper",
    out: Output,
    casefile_id: CasefileId,
    document_ids: Annotated[
        list[str], typer.Argument(metavar="DOCUMENT...", help="Ids of documents, doc_…", show_default=False)
    ],
    reason: Annotated[str | None, typer.Option(help="Why, for the record.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete documents, with what was attached to them, for good. The record keeps that they were there."""
    if not yes:
        what = f"“{(await ck.documents.get(casefile_id, document_ids[0])).title}”"
        if len(document_ids) > 1:
            what += f" and {len(document_ids) - 1} more"
        typer.confirm(f"Delete {what}, with what is attached, for good?", abort=True, err=True)
    gone = await ck.documents.delete(casefile_id, document_ids, reason=reason)
    out.answer(gone, f"Deleted: {', '.join(gone.document_ids)}, and what was attached.")


def _header(document: "Document") -> list[tuple[str, str]]:
    lines = [
        ("title", document.title),
        ("kind", document.kind),
        ("from", document.sender or ""),
        ("to", ", ".join(document.recipients)),
        ("cc", ", ".join(document.cc)),
        ("date", when(document.sent_at)),
        ("labels", ", ".join(document.labels)),
        ("files", ", ".join(document.filenames)),
        ("source", document.source),
        ("bytes", f"{document.size:,}"),
        ("sha256", document.sha256),
        ("filed", f"{when(document.created_at)} by {document.created_by} ({document.event_id})"),
        ("problem", document.problem or ""),
    ]
    return [(name, value) for name, value in lines if value]


def _tell(hit: "Hit", out: Output) -> None:
    """A hit in three lines: id and title, who and when, and the snippet with what was found in bold."""
    from rich.text import Text

    who = (hit.sender or hit.kind)[:_SENDER_MAX]
    date = when(hit.sent_at or hit.created_at)
    snippet = Text("  " + printable(hit.snippet), style="dim")
    for start, end in hit.highlights:
        snippet.stylize("bold not dim", start + 2, end + 2)
    out.console.print(
        Text(f"{hit.document_id}  {printable(hit.title)}"),
        Text(f"  {date}  {printable(who)}"),
        snippet,
        sep="\n",
        soft_wrap=True,
    )


def _facet_line(facets: "list[Facet]") -> str:
    return ", ".join(f"{printable(facet.value)} ({facet.count})" for facet in facets[:_FACETS_TOLD])
