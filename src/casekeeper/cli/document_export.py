"""`export --documents`: a casefile's documents as files, with a list of what they are and their digests."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from casekeeper.cli.exits import CONFLICT, DATA, Stop
from casekeeper.cli.output import Output

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.documents.document import DocumentSummary

_NAME_MAX = 80
_LIST, _DIGESTS = "documents.jsonl", "SHA256SUMS"


async def export_originals(ck: "Casekeeper", out: Output, casefile_id: str, folder: Path) -> None:
    """Write every document's raw bytes into a new folder; the record tells of each.

    `SHA256SUMS` is as `sha256sum --check` reads it, `documents.jsonl` says of each file what it is. Both are written
    when all files are, so that a folder without them is not whole.
    """
    files = size = 0
    try:
        _make(folder)
        with _new(folder / f".{_LIST}") as listed, _new(folder / f".{_DIGESTS}") as digests:
            async for document in ck.documents.each(casefile_id):
                name = _file_name(document)
                with _new(folder / name) as file:
                    async for chunk in ck.documents.content(casefile_id, document.document_id):
                        file.write(chunk)
                told = document.model_dump_json(exclude_defaults=True)
                listed.write(f'{{"file":"{name}",{told[1:]}\n'.encode())
                digests.write(f"{document.sha256}  {name}\n".encode())
                files, size = files + 1, size + document.size
        for last in (_LIST, _DIGESTS):
            (folder / f".{last}").replace(folder / last)
    except FileExistsError as error:
        raise Stop(f"{folder} is there already; name another folder with -o.", CONFLICT) from error
    except OSError as error:
        raise Stop(f"{folder} cannot be written: {error}.", DATA) from error
    told = {"path": str(folder), "documents": files, "bytes": size}
    out.answer(
        told, f"{folder}: {files:,} documents, {size:,} bytes. Check them with sha256sum -c {_DIGESTS}"
    )


def _make(folder: Path) -> None:
    """What is written holds everything: for its owner alone."""
    folder.mkdir(mode=0o700)


def _new(path: Path) -> BinaryIO:
    """A file for its owner alone that was not there before."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _file_name(document: "DocumentSummary") -> str:
    """Its id, which no other has, and as much of its name as every file system takes."""
    name = f"{document.title}.eml" if document.kind == "mail" else (*document.filenames, document.title)[0]
    stem, dot, ending = name.rpartition(".")
    plain = [
        "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in part)
        for part in (stem or ending, ending if stem else "")
    ]
    return f"{document.document_id}-{plain[0][:_NAME_MAX]}" + (
        f".{plain[1][:10]}" if dot and plain[1] else ""
    )
