"""Casefiles move between stores by two commands; whatever is wrong is one line, and nothing is half done."""

import hashlib
import io
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from casekeeper.bundles.archive import ArchiveWriter, members
from tests.doors.commands import SAMPLE, Cli, a_casefile, serve


@pytest.fixture
def other(first_start: Path, tmp_path: Path) -> Path:
    """Another data directory."""
    return Path(shutil.copytree(first_start, tmp_path / "other"))


@pytest.fixture
def casefile_id(cli: Cli, data: Path) -> str:
    """A casefile with mail."""
    casefile_id = a_casefile(cli, data)
    assert cli("import", casefile_id, SAMPLE, "--data", data).code == 0
    return casefile_id


@pytest.fixture
def bundle(cli: Cli, data: Path, casefile_id: str, tmp_path: Path) -> Path:
    """Its bundle."""
    told = cli("export", casefile_id, "-o", tmp_path / "bundle.tar", "--data", data)
    assert told.code == 0, told.err
    return tmp_path / "bundle.tar"


def test_a_casefile_moves_with_its_mail_and_its_record(
    cli: Cli, data: Path, other: Path, casefile_id: str, bundle: Path
) -> None:
    assert bundle.stat().st_mode & 0o077 == 0
    assert cli("verify", bundle).code == 0
    taken = cli("import-bundle", bundle, "--data", other, "--json")
    assert taken.code == 0, taken.err
    assert taken.json["documents"] > 20
    assert cli("verify", "--data", other).code == 0
    lines = [
        cli("export", casefile_id, "--record", "-o", "-", "--data", place).out for place in (data, other)
    ]
    assert set(lines[0].splitlines()) < set(lines[1].splitlines())
    found = [
        cli("search", casefile_id, "tax", "--json", "--data", place).json["items"] for place in (data, other)
    ]
    assert found[0] == found[1] != []
    again = cli("import-bundle", bundle, "--data", other)
    assert (again.code, "is here already" in again.out) == (0, True)
    told = [json.loads(line)["header"]["kind"] for line in lines[1].splitlines()]
    assert (told.count("exported"), told.count("imported")) == (1, 1)


def test_only_operators_and_owners_export_and_only_operators_import(
    cli: Cli, data: Path, other: Path, casefile_id: str, bundle: Path, tmp_path: Path
) -> None:
    assert cli("user", "create", "sam@example.com", "--no-password", "--data", data).code == 0
    assert cli("casefile", "grant", casefile_id, "sam@example.com", "admin", "--data", data).code == 0
    as_sam = ("--user", "sam@example.com", "--data", data)
    refused = cli("export", casefile_id, "-o", tmp_path / "x.tar", *as_sam)
    assert (refused.code, "neither" in refused.err) == (11, True)
    assert cli("import-bundle", bundle, *as_sam).code == 11
    assert cli("export", casefile_id, "--user", "nobody@example.com", "--data", data).code == 10
    assert not (tmp_path / "x.tar").exists()
    owned = cli("casefile", "create", "Sam's own", *as_sam).out.strip()
    assert cli("export", owned, "-o", tmp_path / "x.tar", *as_sam).code == 0
    mapped = cli(
        "import-bundle", tmp_path / "x.tar", "--map", "sam@example.com=operator@localhost", "--data", other
    )
    assert mapped.code == 0, mapped.err
    assert (
        cli("casefile", "show", owned, "--json", "--data", other).json["casefile"]["owner"]
        == "operator@localhost"
    )


def test_a_directory_that_a_server_holds_is_left_alone(
    cli: Cli, data: Path, casefile_id: str, bundle: Path
) -> None:
    served = serve(data)
    try:
        for command in (("export", casefile_id), ("import-bundle", bundle)):
            ended = cli(*command, "--data", data)
            assert (ended.code, "is in use by the server at http" in ended.err) == (20, True)
    finally:
        served.stop()
        served.process.communicate()


def remade(bundle: Path, change: Callable[[str, bytes], bytes | None], *, more: bytes = b"") -> None:
    """Make the bundle anew with other contents, digests and all; None leaves a member out."""
    archive, file = ArchiveWriter(made := io.BytesIO()), io.BytesIO(bundle.read_bytes())
    for member in members(file):
        content = change(member.name, member.content())
        if content is not None:
            archive.add(member.name, len(content), (content,))
    if more:
        archive.add("more.json", len(more), (more,))
    archive.finish()
    bundle.write_bytes(made.getvalue())


def _replaced(name: str, old: bytes, new: bytes) -> Callable[[str, bytes], bytes | None]:
    return lambda member, content: content.replace(old, new) if member.startswith(name) else content


def _without(name: str) -> Callable[[str, bytes], bytes | None]:
    return lambda member, content: None if member.startswith(name) else content


FORGED: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "newer": (_replaced("bundle.json", b'"version":1', b'"version":2'), "newer casekeeper"),
    "another format": (
        _replaced("bundle.json", b"casekeeper bundle", b"something else"),
        "bundle.json cannot",
    ),
    "record changed": (_replaced("records/", b"document_import", b"document_impart"), "not intact"),
    "record of another": (_replaced("sessions.jsonl", b'"seq":', b'"seq":1'), "record"),
    "mail changed": (_replaced("documents/", b"tax", b"TAX"), "are not its own"),
    "another casefile": (
        _replaced("casefile.json", b'"casefile_id":"cf_', b'"casefile_id":"cf_9'),
        "casefile.json",
    ),
    "no people": (
        _replaced("people.jsonl", b"operator@localhost", b"nobody@localhost"),
        "everybody who is named",
    ),
    "people cut": (lambda name, content: content[:-1] if name == "people.jsonl" else content, "line feed"),
    "grants left out": (_without("grants.jsonl"), "grants.jsonl is not where it should be"),
    "counts left out": (_without("counts.json"), "no counts.json"),
    "raw left out": (
        lambda name, content: None if name.endswith(".raw") else content,
        "not where it should be",
    ),
    "documents left out": (_without("documents/"), "as much as it says"),
    "sessions left out": (lambda name, content: b"" if name == "sessions.jsonl" else content, "not those of"),
    "record left out": (_without("records/"), "not where it should be"),
    "no JSON": (
        lambda name, content: b"[" * 100_000 if name == "casefile.json" else content,
        "casefile.json",
    ),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_bundle_is_refused_with_a_line_that_says_what_is_wrong(
    cli: Cli, other: Path, bundle: Path, case: str
) -> None:
    change, says = FORGED[case]
    remade(bundle, change)
    refused = cli("import-bundle", bundle, "--data", other)
    assert (refused.code, refused.out) == (20, "")
    assert says in refused.err
    assert refused.err.count("\n") == 1
    assert cli("verify", bundle).code == 40
    assert cli("casefile", "list", "--json", "--data", other).json == []
    assert cli("user", "list", "--json", "--data", other).json[0]["user_id"] == "operator@localhost"


def test_bytes_that_are_changed_cut_or_added_are_refused(cli: Cli, other: Path, bundle: Path) -> None:
    whole = bundle.read_bytes()
    places = [int(hashlib.sha256(b"%d" % n).hexdigest(), 16) % len(whole) for n in range(12)]
    damaged = [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in places]
    damaged += [whole[:n] for n in places] + [whole + b"\0", whole[:-1], b"x", b"{}"]
    for content in damaged:
        bundle.write_bytes(content)
        refused = cli("import-bundle", bundle, "--data", other)
        assert (refused.code, refused.out, refused.err.count("\n")) == (20, "", 1)
        assert cli("verify", bundle).code == 40
    bundle.write_bytes(whole)
    remade(bundle, lambda _, content: content, more=b"{}")
    assert "more behind" in cli("import-bundle", bundle, "--data", other).err
    assert cli("casefile", "list", "--json", "--data", other).json == []


def test_heads_that_were_kept_are_looked_for_in_a_bundle(cli: Cli, bundle: Path) -> None:
    head = cli("verify", bundle, "--json").json["report"]["sessions"][0]
    kept = f"{head['session_id']}:{head['head_seq']}:{head['head_hash']}"
    assert cli("verify", bundle, "--head", kept).code == 0
    assert cli("verify", bundle, "--head", f"{head['session_id']}:1:{'0' * 64}").code == 42
    assert cli("verify", bundle, "--head", f"ts_260101_x_000000:1:{'0' * 64}").code == 42


def test_a_full_disk_is_one_line_leaves_nothing_and_a_repeat_works(
    cli: Cli, data: Path, other: Path, casefile_id: str, bundle: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = bundle.stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        exported = cli("export", casefile_id, "-o", place / "x.tar", "--data", data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (exported.code, exported.out, exported.err.count("\n")) == (20, "", 1)
    assert list(place.iterdir()) == []
    # The log of the import takes more than half of what the tables take when they are empty.
    resource.setrlimit(resource.RLIMIT_FSIZE, ((other / "casekeeper.db").stat().st_size // 2, hard))
    try:
        taken = cli("import-bundle", bundle, "--data", other)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert taken.code in (18, 20)
    assert (taken.out, taken.err.count("\n")) == ("", 1)
    assert cli("casefile", "list", "--json", "--data", other).json == []
    assert cli("import-bundle", bundle, "--data", other).code == 0
    assert cli("verify", "--data", other).code == 0


def test_wrong_usage_is_named(cli: Cli, data: Path, casefile_id: str, tmp_path: Path) -> None:
    assert cli("import-bundle", tmp_path / "absent.tar", "--data", data).code == 2
    (tmp_path / "x").write_text("x")
    assert "OLD=NEW" in cli("import-bundle", tmp_path / "x", "--map", "nonsense", "--data", data).err
    assert cli("export", "cf_260101_000000", "--data", data).code == 12
    assert cli("export", casefile_id, "-o", tmp_path / "no" / "x.tar", "--data", data).code == 20
    assert cli("import-bundle", tmp_path / "x", "--url", "http://localhost:1").code == 2
