"""The command line on documents: raw bytes out of it, deletion, and whether every byte is still there."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests.doors.commands import SAMPLE, Cli, a_casefile

LARGE_ONE = "kind:text larger:100K"
LARGE = b"Heating costs 2024\n" * 40_000


def a_filled_casefile(cli: Cli, data: Path, tmp_path: Path) -> str:
    """A casefile with the sample's mails and a large file."""
    casefile_id = a_casefile(cli, data)
    (tmp_path / "größe (1).txt").write_bytes(LARGE)
    told = cli("import", casefile_id, SAMPLE, tmp_path / "größe (1).txt", "--data", data)
    assert told.code == 0, told.err
    return casefile_id


def documents(cli: Cli, data: Path, casefile_id: str, query: str) -> list[str]:
    """The ids that a search finds."""
    found = cli("search", casefile_id, query, "--data", data, "--json", "--limit", 200)
    return [hit["document_id"] for hit in found.json["items"]]


def test_all_documents_are_written_into_a_folder_that_sha256sum_checks(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    casefile_id = a_filled_casefile(cli, data, tmp_path)
    folder = tmp_path / "out"

    told = cli("export", casefile_id, "--documents", "-o", folder, "--data", data)

    assert told.code == 0, told.err
    listed = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
    assert f"{len(listed)} documents" in told.out
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    assert {one["file"] for one in listed} | {"documents.jsonl", "SHA256SUMS"} == {
        path.name for path in folder.iterdir()
    }
    [large] = [one for one in listed if one["size"] == len(LARGE)]
    assert large["file"] == f"{large['document_id']}-gr__e__1_.txt"
    assert (folder / large["file"]).read_bytes() == LARGE
    facts = cli("export", casefile_id, "--record", "-o", "-", "--data", data).out
    assert facts.count('"kind":"document_read"') == len(listed)


def test_a_folder_that_is_there_is_left_alone(cli: Cli, data: Path, tmp_path: Path) -> None:
    casefile_id = a_filled_casefile(cli, data, tmp_path)

    told = cli("export", casefile_id, "--documents", "-o", tmp_path, "--data", data)
    both = cli("export", casefile_id, "--documents", "--record", "--data", data)

    assert (told.code, "is there already" in told.err) == (13, True)
    assert (both.code, "give one of them" in both.err) == (2, True)


def test_raw_bytes_are_written_as_they_came(cli: Cli, data: Path, tmp_path: Path) -> None:
    casefile_id = a_filled_casefile(cli, data, tmp_path)
    [document_id] = documents(cli, data, casefile_id, LARGE_ONE)

    told = cli("show", casefile_id, document_id, "--raw", "--data", data)

    assert (told.code, told.out.encode() == LARGE) == (0, True)


def test_documents_are_deleted_with_a_reason(cli: Cli, data: Path, tmp_path: Path) -> None:
    casefile_id = a_filled_casefile(cli, data, tmp_path)
    [document_id] = documents(cli, data, casefile_id, LARGE_ONE)

    told = cli("delete", casefile_id, document_id, "--reason", "Not ours", "--yes", "--data", data)
    again = cli("delete", casefile_id, document_id, "--yes", "--data", data)

    assert (told.code, document_id in told.out) == (0, True)
    assert (again.code, "document_not_found" in again.err) == (12, True)
    assert documents(cli, data, casefile_id, LARGE_ONE) == []
    assert "Not ours" in cli("export", casefile_id, "--record", "-o", "-", "--data", data).out
    assert cli("verify", "--data", data).code == 0


def test_verify_reads_every_document(cli: Cli, data: Path, tmp_path: Path) -> None:
    casefile_id = a_filled_casefile(cli, data, tmp_path)
    [large] = documents(cli, data, casefile_id, LARGE_ONE)
    whole = cli("verify", "--data", data, "--json")
    assert (whole.code, whole.json["documents"]) == (0, len(documents(cli, data, casefile_id, "")))

    blob = data / "blobs" / casefile_id / large
    blob.write_bytes(LARGE.replace(b"2024", b"2025", 1))
    changed = cli("verify", "--casefile", casefile_id, "--data", data)
    blob.unlink()
    missing = cli("verify", "--data", data)
    alone = cli("verify", "--no-documents", "--data", data)

    assert (changed.code, f"tampered: {large}" in changed.out) == (40, True)
    assert (missing.code, f"gap: {large}" in missing.out) == (41, True)
    assert alone.code == 0


def test_verify_finds_changed_bytes_in_the_database(cli: Cli, data: Path, tmp_path: Path) -> None:
    a_filled_casefile(cli, data, tmp_path)
    with closing(sqlite3.connect(data / "casekeeper.db")) as connection:
        connection.execute(
            "UPDATE document_raw SET data = CAST(data || 'x' AS BLOB) WHERE rowid IN (SELECT min(rowid) FROM document_raw)"
        )
        connection.commit()

    told = cli("verify", "--data", data)

    assert (told.code, told.out.count("tampered: ")) == (40, 1), told.err
