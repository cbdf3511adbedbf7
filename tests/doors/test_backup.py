"""A whole data directory is kept and brought back; what is damaged is refused, and nothing is left half done."""

import json
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.doors.commands import SAMPLE, Cli, a_casefile, serve


@pytest.fixture
def filled(cli: Cli, data: Path) -> Path:
    """A directory with a casefile, documents and a blob."""
    casefile_id = a_casefile(cli, data)
    assert cli("import", casefile_id, SAMPLE, "--data", data).code == 0
    (data / "blobs" / casefile_id).mkdir(exist_ok=True)
    (data / "blobs" / casefile_id / "abc").write_bytes(b"x" * 3_000_000)
    return data


def asked(url: str, token: str) -> int:
    """The status of a call with this token."""
    return httpx2.post(
        f"{url}/v1/casefiles/list", json={"payload": {}}, headers={"authorization": f"Bearer {token}"}
    ).status_code


def test_a_backup_made_beside_a_running_server_brings_everything_back_and_refuses_tokens_from_before(
    cli: Cli, filled: Path, tmp_path: Path
) -> None:
    served = serve(filled)
    try:
        token = cli("token", "operator@localhost", "--data", filled).out.strip()
        assert asked(served.url, token) == 200
        made = cli("backup", tmp_path / "kept", "--data", filled, "--json")
        assert made.code == 0, made.err
        a_casefile(cli, filled, "Made after the backup")
    finally:
        served.stop()
        served.process.communicate()
    there = tmp_path / "restored"
    told = cli("restore", tmp_path / "kept", "--data", there)
    assert told.code == 0, told.err
    assert "Tokens from before are refused" in told.out
    assert cli("verify", "--data", there).code == 0
    assert cli("doctor", "--data", there).code == 0
    titles = [c["title"] for c in cli("casefile", "list", "--json", "--data", there).json]
    assert titles == ["Rent dispute"]
    [blob] = (there / "blobs").rglob("abc")
    assert blob.stat().st_size == 3_000_000
    again = serve(there)
    try:
        # Same keys, same account, not expired: only the epoch tells that the token is from before.
        assert asked(again.url, token) == 401
        assert asked(again.url, cli("token", "operator@localhost", "--data", there).out.strip()) == 200
    finally:
        again.stop()
        again.process.communicate()


def test_refresh_tokens_from_before_a_restore_are_forgotten(cli: Cli, filled: Path, tmp_path: Path) -> None:
    with sqlite3.connect(filled / "casekeeper.db") as database:
        database.execute("INSERT INTO refresh_tokens VALUES ('d', 'f', 'operator@localhost', 1, NULL)")
    database.close()
    assert cli("backup", tmp_path / "kept", "--data", filled).code == 0
    assert cli("restore", tmp_path / "kept", "--data", tmp_path / "there").code == 0
    with sqlite3.connect(tmp_path / "there" / "casekeeper.db") as database:
        assert database.execute("SELECT count(*) FROM refresh_tokens").fetchone() == (0,)
    database.close()


Damage = Callable[[Path], object]


def flipped(pattern: str) -> Damage:
    """A bit of a file is another."""

    def damage(kept: Path) -> None:
        [path] = kept.rglob(pattern)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return damage


def missing(pattern: str) -> Damage:
    """A file is gone."""
    return lambda kept: next(kept.rglob(pattern)).unlink()


def manifest(**changes: object) -> Damage:
    """The manifest says something else; None: it says nothing of it."""

    def damage(kept: Path) -> None:
        told = json.loads((kept / "backup.json").read_text("utf-8")) | changes
        told = {name: value for name, value in told.items() if value is not None}
        (kept / "backup.json").write_text(json.dumps(told), "utf-8")

    return damage


def nonsense(kept: Path) -> None:
    """The manifest is no JSON."""
    (kept / "backup.json").write_text("{", "utf-8")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "database": (flipped("casekeeper.db"), "casekeeper.db is not the file that was kept"),
    "blob": (flipped("abc"), "abc is not the file"),
    "key": (missing("*.pem"), "is not the file that was kept"),
    "no manifest": (missing("backup.json"), "it has no backup.json"),
    "manifest cut": (nonsense, "cannot be read"),
    "newer": (manifest(version=2), "newer casekeeper"),
    "newer schema": (manifest(schema="9999"), "newer casekeeper"),
    "another format": (manifest(format="other"), "is no backup"),
    "a way out": (manifest(files={"casekeeper.db": {}, "keys/../../x": {}}), "names files"),
    "a way to the root": (manifest(files={"casekeeper.db": {}, "/etc/passwd": {}}), "names files"),
    "files a number": (manifest(files=7), "cannot be read"),
    "no date": (manifest(made_at=None), "cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_backup_is_refused_and_leaves_nothing(
    cli: Cli, filled: Path, tmp_path: Path, case: str
) -> None:
    damage, says = DAMAGES[case]
    assert cli("backup", tmp_path / "kept", "--data", filled).code == 0
    damage(tmp_path / "kept")
    place = tmp_path / "place"
    place.mkdir()
    refused = cli("restore", tmp_path / "kept", "--data", place / "there")
    assert (refused.code, refused.out) == (20, "")
    assert says in refused.err
    assert refused.err.count("\n") == 1
    assert list(place.iterdir()) == []


def test_neither_overwrites_anything(cli: Cli, filled: Path, tmp_path: Path) -> None:
    assert cli("backup", tmp_path / "kept", "--data", filled).code == 0
    assert "exists already" in cli("backup", tmp_path / "kept", "--data", filled).err
    before = (filled / "casekeeper.db").read_bytes()
    assert "not empty" in cli("restore", tmp_path / "kept", "--data", filled).err
    assert (filled / "casekeeper.db").read_bytes() == before
    (tmp_path / "empty").mkdir()
    assert cli("restore", tmp_path / "kept", "--data", tmp_path / "empty").code == 0
    absent = cli("backup", tmp_path / "no" / "such", "--data", filled)
    assert (absent.code, "could not be made" in absent.err) == (20, True)


def test_a_full_disk_is_one_line_and_leaves_nothing(cli: Cli, filled: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    assert cli("backup", tmp_path / "kept", "--data", filled).code == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files may grow to a megabyte: a blob of three does not fit, as on a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        backup = cli("backup", place / "kept", "--data", filled)
        restored = cli("restore", tmp_path / "kept", "--data", place / "there")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for ended in (backup, restored):
        assert (ended.code, ended.out) == (20, "")
        assert ended.err.startswith("error: The backup could not be")
        assert ended.err.count("\n") == 1
    assert list(place.iterdir()) == []


def test_another_store_than_the_directorys_own_is_not_passed_over_in_silence(
    cli: Cli, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("backup", tmp_path / "kept", "--data", filled).code == 0
    monkeypatch.setenv("CASEKEEPER_STORE", "postgresql://nobody@127.0.0.1:1/none")
    for ended in (
        cli("backup", tmp_path / "other", "--data", filled),
        cli("restore", tmp_path / "kept", "--data", tmp_path / "there"),
    ):
        assert (ended.code, "docs/backup.md" in ended.err) == (20, True)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "there").exists()
