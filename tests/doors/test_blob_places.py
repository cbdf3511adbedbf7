"""The command line and the server with their blobs in the database or in a bucket instead of a directory."""

import asyncio
import secrets
import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.doors.commands import Cli, serve
from tests.doors.test_cli_documents import LARGE, LARGE_ONE, a_filled_casefile, documents
from tests.fakes.objects import CREDENTIALS, Objects, running_objects
from tests.support import Api, House

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def objects() -> Generator[Objects]:
    """An object store."""
    with running_objects() as server:
        yield server


@pytest.fixture
def bucket(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that nobody else has, and what lets a client in."""
    name = f"bucket{secrets.token_hex(6)}"
    objects.make(name)
    for variable, value in CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    return name


@pytest.fixture(params=["database", "s3", "gs"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where blobs are."""
    address: str = request.param
    if address != "database":
        objects: Objects = request.getfixturevalue("objects")
        address = objects.address(request.param, f"{request.getfixturevalue('bucket')}/prefix")
    monkeypatch.setenv("CASEKEEPER_BLOBS", address)
    return address


def test_large_documents_are_read_verified_moved_and_kept(
    cli: Cli, data: Path, first_start: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    casefile_id = a_filled_casefile(cli, data, tmp_path)
    [document_id] = documents(cli, data, casefile_id, LARGE_ONE)

    shown = cli("show", casefile_id, document_id, "--raw", "--data", data)
    whole = cli("verify", "--data", data)
    well = cli("doctor", "--data", data)
    kept = cli("backup", tmp_path / "kept", "--data", data)
    moved = cli("export", casefile_id, "-o", tmp_path / "rent.tar", "--data", data)
    restored = cli("restore", tmp_path / "kept", "--data", tmp_path / "restored")
    again = cli("verify", "--data", tmp_path / "restored")

    assert shown.out.encode() == LARGE
    codes = [ended.code for ended in (whole, well, kept, moved, restored, again)]
    assert codes == [0] * 6, well.out + kept.err + moved.err + restored.err
    assert f"blobs: in {place}" in well.out
    assert not list(data.glob("blobs/cf_*"))
    if place != "database":
        assert f"The blobs in {place} are not in it" in kept.out
        assert f"Its blobs are in {place}" in restored.out

    # And by a bundle into a store that has a directory for them.
    monkeypatch.delenv("CASEKEEPER_BLOBS")
    there = Path(shutil.copytree(first_start, tmp_path / "there"))
    taken = cli("import-bundle", tmp_path / "rent.tar", "--data", there)
    assert (taken.code, cli("verify", "--data", there).code) == (0, 0), taken.err
    assert (there / "blobs" / casefile_id / document_id).read_bytes() == LARGE


def test_bytes_that_are_gone_from_a_bucket_are_found_missing_and_those_of_a_deleted_casefile_go(
    cli: Cli, data: Path, objects: Objects, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEKEEPER_BLOBS", objects.address("s3", f"{bucket}/prefix"))
    casefile_id = a_filled_casefile(cli, data, tmp_path)
    other = a_filled_casefile(cli, data, tmp_path)
    [document_id] = documents(cli, data, casefile_id, LARGE_ONE)
    key = f"prefix/{casefile_id}/{document_id}"
    before = objects.keys(bucket)
    objects.delete(bucket, key)
    missing = cli("verify", "--data", data)
    deleted = cli("casefile", "delete", other, "--yes", "--data", data)
    assert deleted.code == 0, deleted.err
    served, left = serve(data), objects.keys(bucket)
    try:
        for _ in range(300):
            if not any(other in name for name in left):
                break
            time.sleep(0.05)
            left = objects.keys(bucket)
    finally:
        served.stop()
        served.process.communicate()

    assert key in before
    assert any(other in name for name in before)
    assert (missing.code, f"gap: {document_id}" in missing.out) == (41, True)
    assert left == ["prefix/casekeeper.txt"]


@pytest.mark.parametrize(
    "command", [("verify",), ("serve", "--port", "0"), ("casefile", "list"), ("doctor",)]
)
def test_a_bucket_that_cannot_be_used_is_one_line(
    cli: Cli,
    data: Path,
    objects: Objects,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    cases = {
        objects.address("s3", "absent"): "there is no bucket s3://absent",
        objects.address("s3", bucket, "127.0.0.1:1"): "cannot be used",
        "s4://bucket": "none of: a directory",
    }
    for address, says in cases.items():
        monkeypatch.setenv("CASEKEEPER_BLOBS", address)
        ended = cli(*command, "--data", data)
        if command == ("verify",) and not address.startswith("s4"):
            # There is nothing large in it, so nothing is asked of the bucket.
            assert ended.code == 0
            continue
        assert ended.code != 0
        [line] = [one for one in (ended.out + ended.err).splitlines() if "CASEKEEPER_BLOBS: " in one]
        assert says in line


async def test_an_output_that_cannot_be_kept_for_a_while_is_kept_later(api: Api, house: House) -> None:
    folder = api.server.settings.data / "blobs" / house.casefile_id
    folder.write_text("in the way")
    place = {"casefile_id": house.casefile_id}
    running = asyncio.ensure_future(api.run(house["owner"], "returns_bytes", {"size": 400_000}, **place))
    async with asyncio.timeout(20):
        while not any(kind == "started" for _, kind, _ in await api.facts()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        folder.unlink()
        ended = (await running).json()["payload"]

    assert (ended["success"], len(ended["outputs"])) == (True, 400_000)
    assert [kind for _, kind, event in await api.facts() if event == ended["event_id"]] == [
        "started",
        "succeeded",
    ]
