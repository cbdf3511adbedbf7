"""`export`: a casefile as a bundle, as the lines of its record, or as its documents."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from casekeeper.cli.casefiles import CasefileId
from casekeeper.cli.command import placed_command
from casekeeper.cli.connection import Target, connected
from casekeeper.cli.exits import DATA, NOT_FOUND, USAGE, Stop
from casekeeper.cli.output import Output
from casekeeper.cli.record_sources import records_of


def add_to(app: typer.Typer) -> None:
    """Put the command into the tree."""
    placed_command(app, "export")(export)


async def export(
    target: Target,
    out: Output,
    casefile_id: CasefileId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write; else CASEFILE.tar, .jsonl with --record, a folder with --documents.",
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Only the record's lines; -o - writes them to stdout.")
    ] = False,
    documents: Annotated[
        bool, typer.Option("--documents", help="Only the documents' raw bytes, as files in a folder.")
    ] = False,
) -> None:
    """Write a casefile into a bundle: access list, documents, sessions and record (docs/bundles.md).

    With --record only the lines of its record, with --documents only its documents; a server gives both, too.
    """
    if record and documents:
        raise Stop("--record and --documents are two exports: give one of them.", USAGE)
    if documents:
        from casekeeper.cli.document_export import export_originals

        async with connected(target) as ck:
            await export_originals(ck, out, casefile_id, output or Path(casefile_id))
        return
    if not record:
        from casekeeper.cli.bundles import export_bundle

        await export_bundle(target, out, casefile_id, output or Path(f"{casefile_id}.tar"))
        return
    path = output or Path(f"{casefile_id}.jsonl")
    facts = 0
    async with records_of(target) as records:
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
