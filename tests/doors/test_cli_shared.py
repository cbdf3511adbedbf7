"""The command line on the stores that several processes share: no data directory holds them, no server has to run."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.doors.commands import SAMPLE, Cli
from tests.fakes.firestore import running_emulator
from tests.fakes.postgres import shared_postgres


@pytest.fixture(params=["postgresql", "firestore"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store, which the settings name."""
    address: str = request.getfixturevalue(request.param)
    monkeypatch.setenv("CASEKEEPER_STORE", address)
    return address


@pytest.fixture
def postgresql() -> str:
    """A PostgreSQL database."""
    return asyncio.run(shared_postgres().migrated())


@pytest.fixture
def firestore() -> Generator[str]:
    """A project of Firestore's emulator."""
    with running_emulator() as emulator:
        yield emulator.address()


def test_a_casefile_is_filled_searched_verified_and_moved(
    cli: Cli, data: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, data = data, tmp_path / "here"
    made = cli("casefile", "create", "Rent dispute", "--data", data)
    assert made.code == 0, made.err
    casefile_id = made.out.strip()
    filled = cli("import", casefile_id, SAMPLE, "--data", data)
    assert filled.code == 0, filled.err

    found = cli("search", casefile_id, "", "--limit", 200, "--data", data, "--json").json["items"]
    whole = cli("verify", "--data", data, "--json")
    moved = cli("export", casefile_id, "-o", tmp_path / "rent.tar", "--data", data)
    lines = cli("export", casefile_id, "--record", "-o", tmp_path / "rent.jsonl", "--data", data)

    assert found
    assert (whole.code, whole.json["documents"]) == (0, len(found)), whole.err
    assert (moved.code, lines.code) == (0, 0), moved.err + lines.err
    assert cli("verify", tmp_path / "rent.jsonl").code == 0
    monkeypatch.delenv("CASEKEEPER_STORE")
    taken = cli("import-bundle", tmp_path / "rent.tar", "--data", there)
    assert taken.code == 0, taken.err
    again = cli("search", casefile_id, "", "--limit", 200, "--data", there, "--json").json["items"]
    assert [hit["document_id"] for hit in again] == [hit["document_id"] for hit in found]


def test_a_bundle_comes_into_a_shared_store(
    cli: Cli, data: Path, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CASEKEEPER_STORE")
    casefile_id = cli("casefile", "create", "Rent dispute", "--data", data).out.strip()
    cli("import", casefile_id, SAMPLE, "--data", data)
    assert cli("export", casefile_id, "-o", tmp_path / "rent.tar", "--data", data).code == 0

    monkeypatch.setenv("CASEKEEPER_STORE", store)
    # The operator is made by whatever command comes first.
    assert cli("casefile", "list", "--data", tmp_path / "there").code == 0
    taken = cli("import-bundle", tmp_path / "rent.tar", "--data", tmp_path / "there")

    assert taken.code == 0, taken.err
    checked = cli("verify", "--casefile", casefile_id, "--data", tmp_path / "there", "--json")
    assert (checked.code, checked.json["documents"] > 0) == (0, True)


def test_a_data_directory_beside_a_shared_store_is_looked_after(cli: Cli, data: Path, store: str) -> None:
    missing = [cli(*command, "--data", data / "absent") for command in (["doctor"], ["key", "rotate"])]
    assert cli("migrate", "--data", data).code == 0

    well = cli("doctor", "--data", data)
    rotated = cli("key", "rotate", "--data", data, "--json")
    token = cli("token", "operator@localhost", "--data", data)
    nobody = cli("token", "nobody@localhost", "--data", data)
    index = cli("reindex", "--data", data)

    assert [ended.code for ended in missing] == [21, 20]
    assert not (data / "absent").exists()
    assert (well.code, "✓ schema: at" in well.out) == (0, True), well.out
    assert (rotated.code, rotated.json["kid"] in {p.stem for p in (data / "keys").glob("*.pem")}) == (0, True)
    assert (token.code, token.out.count(".")) == (0, 2), token.err
    assert (nobody.code, index.code) == (10, 20)
    assert "embedded" in index.err


def test_doctor_finds_a_shared_store_that_cannot_be_reached(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEKEEPER_STORE", "postgresql://nobody@127.0.0.1:1/none")
    ill = cli("doctor", "--data", data)
    assert (ill.code, "cannot be reached" in ill.out) == (21, True), ill.out


def test_a_database_that_is_missing_is_named(
    cli: Cli, data: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEKEEPER_STORE", urlsplit(postgresql)._replace(path="/nowhere").geturl())
    ended = cli("migrate", "--data", data)
    assert (ended.code, 'database "nowhere" does not exist' in ended.err) == (18, True), ended.err


@pytest.mark.parametrize(
    "command", [["casefile", "list"], ["verify"], ["export", "cf_260101_000000"], ["migrate"]], ids=" ".join
)
def test_a_store_that_cannot_be_reached_is_one_plain_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("CASEKEEPER_STORE", "postgresql://nobody@127.0.0.1:1/none")

    ended = cli(*command, "--data", tmp_path)

    assert (ended.code, ended.out, ended.err.count("\n")) == (18, "", 1), ended.err
    assert "cannot be reached" in ended.err
