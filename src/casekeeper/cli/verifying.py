"""`verify`: whether the record is whole and unchanged, and every document still what was filed."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casekeeper.cli.command import placed_command
from casekeeper.cli.connection import Target
from casekeeper.cli.exits import NOT_FOUND, USAGE, Stop
from casekeeper.cli.output import Column, Output, printable
from casekeeper.cli.record_sources import Records, records_of

if TYPE_CHECKING:
    from casekeeper.verify import Finding, Report

# Longer records go through a file; the verifier itself reads line by line.
_IN_MEMORY = 16 * 1024 * 1024
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def add_to(app: typer.Typer) -> None:
    """Put the command into the tree."""
    placed_command(app, "verify")(verify)


async def verify(
    target: Target,
    out: Output,
    casefile: Annotated[
        list[str] | None, typer.Option(help="Only this casefile; may be repeated.", show_default=False)
    ] = None,
    session: Annotated[
        list[str] | None, typer.Option(help="Only this session; may be repeated.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Argument(help="Check this file instead: a bundle, or record lines.", show_default=False),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="A fact that must be there: ID:SEQ:HASH, as --json shows them.", show_default=False
        ),
    ] = None,
    documents: Annotated[
        bool, typer.Option("--documents/--no-documents", help="Read all documents, too.")
    ] = True,
) -> None:
    """Check that the record is whole and unchanged, and that every document has the bytes that were filed.

    Without a choice, all of it. Through a server only the record: documents take the store itself.
    """
    kept = _heads(head or [])
    documents_checked: int | None = None
    if file:
        try:
            report = _verify_file(file, kept)
        except OSError as error:
            raise Stop(f"The record cannot be read: {error}.", USAGE) from error
    else:
        async with records_of(target) as records:
            report = await _verify(records, casefile or [], session or [], kept)
            if documents and (casefile or not session):
                documents_checked, findings = await _documents(records, casefile or [])
                report = replace(report, findings=(*report.findings, *findings))
    _tell(report, documents_checked, out)
    raise typer.Exit(report.exit_code)


async def _verify(
    records: Records, casefiles: Sequence[str], sessions: Sequence[str], kept: dict[str, tuple[int, str]]
) -> "Report":
    from casekeeper.verify import Finding, Report
    from casekeeper.verify import verify as check

    heads = await records.heads(casefiles, sessions)
    missing = {*casefiles, *sessions} - {h.casefile_id for h in heads} - {h.session_id for h in heads}
    if missing:
        raise Stop(f"There is no record of {', '.join(sorted(missing))} here.", NOT_FOUND)
    summaries: list[Any] = []
    findings: list[Finding] = []
    for stored in heads:
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as lines:
            async for line in records.lines(stored):
                lines.write(line)
            lines.seek(0)
            # What the store says is its newest fact must be there: the tail of a record can be cut, too.
            wanted = {stored.session_id: (stored.seq, stored.hash)} if stored.seq else {}
            if stored.session_id in kept:
                wanted[stored.session_id] = kept.pop(stored.session_id)
            part = check(lines, wanted)
        summaries += part.sessions
        findings += part.findings
    findings += [
        Finding(session_id, seq, "diverges", "the head that was kept is not here")
        for session_id, (seq, _) in kept.items()
    ]
    return Report(tuple(summaries), tuple(findings))


def _verify_file(path: Path, kept: dict[str, tuple[int, str]]) -> "Report":
    """What a bundle or a file of record lines shows about itself. A tar archive does not begin with a brace."""
    from casekeeper.verify import Finding, Report
    from casekeeper.verify import verify as check

    with path.open("rb") as file:
        is_bundle = file.read(1) not in (b"{", b"")
        file.seek(0)
        if not is_bundle:
            return check(file, kept)
        from casekeeper.bundles.archive import BundleUnfit
        from casekeeper.bundles.integrity import judge

        try:
            return judge(file, kept).report
        except BundleUnfit as error:
            return Report((), (Finding(None, None, "malformed", f"{path}: {error}"),))


async def _documents(records: Records, casefiles: Sequence[str]) -> "tuple[int | None, list[Finding]]":
    """How many documents were read, None where they cannot be, and what is wrong with them."""
    from casekeeper.verify import Finding

    every = records.documents(casefiles)
    if every is None:
        return None, []
    count, findings = 0, list[Finding]()
    async for document, condition in every:
        count += 1
        name = f"{document.document_id} of {document.casefile_id}"
        if condition == "missing":
            findings.append(Finding(None, None, "gap", f"{name}: its bytes are missing"))
        elif condition == "changed":
            findings.append(
                Finding(None, None, "tampered", f"{name}: its bytes are not those that were filed")
            )
    return count, findings


def _tell(report: "Report", documents: int | None, out: Output) -> None:
    verdict = {0: "intact", 30: "intact, with payloads erased"}.get(report.exit_code, "NOT intact")
    if out.as_json:
        out.json(
            {"verdict": verdict, "exit_code": report.exit_code, "documents": documents, "report": report}
        )
        return
    columns = (
        Column("CASEFILE", fixed=True),
        Column("SESSION", fixed=True),
        Column("FACTS", right=True),
        Column("OPEN", right=True),
        Column("HEAD", fixed=True),
    )
    out.rows(
        report.sessions,
        columns,
        # Enough of the hash to compare by eye; --json has it whole.
        lambda s: (s.casefile_id, s.session_id, str(s.facts), str(s.open or ""), s.head_hash[:12]),
        "There are no sessions.",
    )
    for finding in report.findings:
        place = f"{finding.session_id} fact {finding.seq}: " if finding.session_id else ""
        text = printable(f"{finding.kind}: {place}{finding.message}")
        out.console.print(text, markup=False, highlight=False, soft_wrap=True, style="red")
    facts = sum(s.facts for s in report.sessions)
    read = "" if documents is None else f", {documents:,} documents"
    text = f"{verdict}: {len(report.sessions)} sessions, {facts} facts{read}, {len(report.findings)} findings"
    style = "green" if report.exit_code == 0 else "yellow" if report.exit_code == 30 else "bold red"
    out.console.print(text, style=style, highlight=False)


def _heads(given: Sequence[str]) -> dict[str, tuple[int, str]]:
    heads: dict[str, tuple[int, str]] = {}
    for text in given:
        session_id, _, rest = text.partition(":")
        seq, _, digest = rest.partition(":")
        # A shortened hash, as the table shows it, would look like a record that was rewritten.
        if not seq.isdecimal() or not _DIGEST.fullmatch(digest):
            raise Stop(
                f"--head takes ID:SEQ:HASH with all 64 digits of the hash, as --json shows it, not {text!r}.",
                USAGE,
            )
        heads[session_id] = (int(seq), digest.lower())
    return heads
