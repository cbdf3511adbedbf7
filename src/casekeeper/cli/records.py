"""The record: `verify` and `export`. From a data directory, everything; from a server, what the caller may read."""

import os
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Protocol

import typer

from casekeeper.cli.casefiles import CasefileId
from casekeeper.cli.command import placed_command
from casekeeper.cli.exits import DATA, NOT_FOUND, USAGE, Stop
from casekeeper.cli.output import Column, Output, printable
from casekeeper.cli.reach import Where, existing, reach, read_settings

if TYPE_CHECKING:
    from casekeeper.cli.readonly import StoredHead
    from casekeeper.client import Casekeeper
    from casekeeper.verify import Report

# Longer records go through a file; the verifier itself reads line by line.
_IN_MEMORY = 16 * 1024 * 1024


class Records(Protocol):
    """Where record lines come from."""

    async def heads(self, casefiles: Sequence[str], sessions: Sequence[str]) -> "list[StoredHead]":
        """The sessions of these casefiles and these sessions; all that there are where none is named."""
        ...

    def lines(self, head: "StoredHead") -> AsyncGenerator[bytes]:
        """The record lines of a session."""
        ...


@dataclass(frozen=True, slots=True)
class _ServerRecords:
    """The records that a caller may read."""

    ck: "Casekeeper"

    async def heads(self, casefiles: Sequence[str], sessions: Sequence[str]) -> "list[StoredHead]":
        from casekeeper.cli.readonly import StoredHead

        wanted = {s: await self.ck.sessions.get(s, include_events=False) for s in sessions}
        found: dict[str, Any] = {**wanted}
        if casefiles or not sessions:
            places = [await self.ck.casefiles.get(c) for c in casefiles] or [
                c async for c in self.ck.casefiles.each()
            ]
            for place in places:
                if place.record_session_id:
                    record = place.record_session_id
                    found[record] = await self.ck.sessions.get(record, include_events=False)
                async for session in self.ck.sessions.each(casefile_id=place.casefile_id):
                    found[session.session_id] = session
        return [
            StoredHead(s.casefile_id, s.session_id, s.head.seq, s.head.hash) for s in found.values() if s.head
        ]

    def lines(self, head: "StoredHead") -> AsyncGenerator[bytes]:
        return self.ck.record(head.session_id)


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    placed_command(app, "verify")(verify)
    placed_command(app, "export")(export)


async def verify(
    where: Where,
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
        typer.Option(help="A fact that must be there: ID:SEQ:HASH, as printed before.", show_default=False),
    ] = None,
) -> None:
    """Check that the record is whole and unchanged. Without a choice, all of it."""
    kept = _heads(head or [])
    if file:
        try:
            report = _verify_file(file, kept)
        except OSError as error:
            raise Stop(f"The record cannot be read: {error}.", USAGE) from error
    else:
        async with _records(where) as records:
            report = await _verify(records, casefile or [], session or [], kept)
    _tell(report, out)
    raise typer.Exit(report.exit_code)


async def export(
    where: Where,
    out: Output,
    casefile_id: CasefileId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; else CASEFILE.tar, or .jsonl with --record."),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Only the record's lines; -o - writes them to stdout.")
    ] = False,
) -> None:
    """Write a casefile into a bundle: access list, documents, sessions and record (docs/bundles.md).

    With --record only the lines of its record, which a server gives, too.
    """
    if not record:
        from casekeeper.cli.bundles import export_bundle

        await export_bundle(where, out, casefile_id, output or Path(f"{casefile_id}.tar"))
        return
    path = output or Path(f"{casefile_id}.jsonl")
    facts = 0
    async with _records(where) as records:
        heads = await records.heads([casefile_id], [])
        if not heads:
            raise Stop(f"There is no casefile {casefile_id} here.", NOT_FOUND)
        with _written(path) as file:
            for stored in heads:
                async for line in records.lines(stored):
                    file.write(line)
                    facts += 1
    counted = f"{facts} facts of {len(heads)} sessions"
    if str(path) == "-":
        out.remark(counted)
    else:
        told = {"path": str(path), "sessions": len(heads), "facts": facts}
        out.answer(told, f"{path}: {counted}. Check it with: casekeeper verify {path}")


@contextmanager
def _written(path: Path) -> Generator[BinaryIO]:
    """A file that appears when it is whole, or stdout for `-`."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    aside = path.with_name(f".{path.name}.new")
    try:
        # Records hold what was asked and found: for their owner alone.
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        aside.replace(path)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error}.", DATA) from error
    finally:
        aside.unlink(missing_ok=True)


@asynccontextmanager
async def _records(where: Where) -> AsyncGenerator[Records]:
    """The directory's own records, unless a server or a user is named whose permissions count."""
    if where.user or where.login():
        async with reach(where) as ck:
            yield _ServerRecords(ck)
        return
    data = existing(read_settings(where.data))
    from casekeeper.cli.readonly import ReadOnly, StoredRecords

    with ReadOnly(data) as reads:
        yield StoredRecords(reads, data)


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
        from casekeeper.bundles.judging import judge

        try:
            return judge(file, kept).report
        except BundleUnfit as error:
            return Report((), (Finding(None, None, "malformed", f"{path}: {error}"),))


def _tell(report: "Report", out: Output) -> None:
    verdict = {0: "intact", 30: "intact, with payloads erased"}.get(report.exit_code, "NOT intact")
    if out.as_json:
        out.json({"verdict": verdict, "exit_code": report.exit_code, "report": report})
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
    text = f"{verdict}: {len(report.sessions)} sessions, {facts} facts, {len(report.findings)} findings"
    style = "green" if report.exit_code == 0 else "yellow" if report.exit_code == 30 else "bold red"
    out.console.print(text, style=style, highlight=False)


def _heads(given: Sequence[str]) -> dict[str, tuple[int, str]]:
    heads: dict[str, tuple[int, str]] = {}
    for text in given:
        session_id, _, rest = text.partition(":")
        seq, _, digest = rest.partition(":")
        if not seq.isdecimal() or not digest:
            raise Stop(f"--head takes ID:SEQ:HASH, not {text!r}.", USAGE)
        heads[session_id] = (int(seq), digest.lower())
    return heads
