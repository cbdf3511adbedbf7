"""Files that do not fit, and a disk that is full."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsPartialDict

from tests.doors.problems import assert_problem
from tests.support import Api, House, Workshop, bearer, open_test_server, unavailable

MAIL = b"From: a@example.com\r\nSubject: Rent\r\nMessage-ID: <1@x>\r\n\r\nIt is late.\r\n"
MBOX = b"From a@example.com Thu Jan  1 00:00:00 2026\n" + MAIL.replace(b"\r\n", b"\n") + b"\n"


async def imported(api: Api, house: House, filename: str, body: bytes) -> dict[str, Any]:
    """Upload and file; the outcome."""
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename={filename}"
    response = await api.http.post(path, content=body, headers=bearer(house["editor"]))
    assert response.status_code == 200, response.text
    upload = {"upload_id": response.json()["payload"]["upload_id"]}
    return (await api.run(house["editor"], "document_import", upload, casefile_id=house.casefile_id)).json()[
        "payload"
    ]


FILES = {
    "whole": (
        "a.mbox",
        MBOX * 2 + MBOX.replace(b"<1@x>", b"<2@x>"),
        {"read": 3, "added": 2, "unreadable": 0},
    ),
    "truncated in a header": ("a.mbox", MBOX + MBOX[:60], {"read": 2, "added": 2}),
    "truncated in a body": ("a.mbox", MBOX + MBOX[:-8], {"read": 2, "added": 2, "unreadable": 0}),
    "binary": ("a.mbox", bytes(range(256)) * 64, {"read": 1, "added": 1, "unreadable": 1}),
    "zeros": ("a.mbox", bytes(100_000), {"read": 1, "added": 1, "unreadable": 1}),
    "another kind": ("a.pdf", b"%PDF-1.7\nnot really", {"read": 1, "added": 1, "unreadable": 1}),
    "a mail": ("a.eml", MAIL, {"read": 1, "added": 1, "unreadable": 0}),
}


@pytest.mark.parametrize("name", FILES)
async def test_an_import_keeps_what_it_cannot_read_and_says_so(api: Api, house: House, name: str) -> None:
    filename, body, counts = FILES[name]
    ran = await imported(api, house, filename, body)
    assert ran == IsPartialDict(success=True, outputs=IsPartialDict(counts))


async def test_an_empty_upload_is_refused(api: Api, house: House) -> None:
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=empty.mbox"
    response = await api.http.post(path, content=b"", headers=bearer(house["editor"]))
    assert_problem(response, 422, "arguments_invalid", field="body")


async def test_an_upload_above_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "data", upload_bytes=1000) as server, Api.of(server) as api:
        house = await api.house()
        path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=a.eml"
        response = await api.http.post(path, content=b"x" * 1001, headers=bearer(house["editor"]))
        assert_problem(response, 413, "body_too_large")
        assert [p for p in (tmp_path / "data" / "blobs").rglob("*") if p.is_file()] == []


async def test_another_users_upload_cannot_be_filed(api: Api, house: House) -> None:
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=a.eml"
    sent = await api.http.post(path, content=MAIL, headers=bearer(house["editor"]))
    upload = {"upload_id": sent.json()["payload"]["upload_id"]}
    ran = await api.run(house["admin"], "document_import", upload, casefile_id=house.casefile_id)
    assert ran.json()["error"] == IsPartialDict(type="document_not_found")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    mount, place = shutil.which("mount"), tmp_path / "disk"
    place.mkdir()
    options = [mount or "mount", "-t", "tmpfs", "-o", "size=8m", "casekeeper-test", str(place)]
    if mount is None or subprocess.run(options, capture_output=True).returncode:
        unavailable("the right to mount a file system of its own, for the tests of a full disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
async def cramped(small_disk: Path, workshop: Workshop) -> AsyncGenerator[tuple[Api, House, Path]]:
    """A server on that disk, somebody in it, and a file that fills the disk when it is grown."""
    async with open_test_server(small_disk / "data", workshop=workshop) as server, Api.of(server) as api:
        yield api, await api.house(), small_disk / "ballast"


def fill(ballast: Path) -> None:
    """Take the last free byte of the disk."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_answers_503_and_may_be_tried_again(cramped: tuple[Api, House, Path]) -> None:
    api, house, ballast = cramped
    fill(ballast)
    problem = assert_problem(await _refused(api, house), 503, "store_unavailable")
    assert problem["retryable"] is True


async def test_a_full_disk_can_be_read(cramped: tuple[Api, House, Path]) -> None:
    api, house, ballast = cramped
    session_id = await api.session(house["owner"], house.casefile_id)
    fill(ballast)
    await _refused(api, house)
    got = await api.post("/v1/sessions/get", {"session_id": session_id}, token=house["owner"])
    assert got.status_code == 200


async def test_a_full_disk_takes_no_upload(cramped: tuple[Api, House, Path]) -> None:
    api, house, ballast = cramped
    fill(ballast)
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=a.eml"
    response = await api.http.post(path, content=MAIL * 10_000, headers=bearer(house["owner"]))
    assert_problem(response, 503, "store_unavailable")


async def test_writing_goes_on_when_there_is_room_again(cramped: tuple[Api, House, Path]) -> None:
    api, house, ballast = cramped
    fill(ballast)
    await _refused(api, house)
    ballast.unlink()
    again = await api.run(house["owner"], "note_add", {"text": "x"}, casefile_id=house.casefile_id)
    assert again.json()["payload"]["success"] is True


async def test_what_ran_while_the_disk_became_full_gets_its_end_when_there_is_room(
    cramped: tuple[Api, House, Path], workshop: Workshop
) -> None:
    api, house, ballast = cramped
    running = asyncio.ensure_future(
        api.run(house["owner"], "waits", casefile_id=house.casefile_id, request_id="r1")
    )
    await workshop.until_running("waits")
    fill(ballast)
    await _refused(api, house)
    workshop.release.set()
    await asyncio.sleep(0.1)
    ballast.unlink()
    assert (await running).json()["payload"] == IsPartialDict(success=True, outputs="released")


async def _refused(api: Api, house: House) -> Any:
    """The first answer that the full disk refuses; what SQLite has room for in its files goes through before."""
    for _ in range(200):
        text = {"text": "x" * 20_000}
        response = await api.run(
            house["editor"], "note_add", text, casefile_id=house.casefile_id, timeout_s=2
        )
        if response.status_code != 200:
            return response
    pytest.fail("the disk never became full")
