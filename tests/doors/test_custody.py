"""Custody: who reads raw bytes is on the record, what is deleted is gone and its tombstone stays."""

import hashlib
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.doors.problems import assert_problem
from tests.doors.test_documents_api import file, upload
from tests.support import Api, House, SteppableClock, bearer, open_test_server
from tests.unit.reading.made import zipped

NOBODYS = "doc_00000000000000000000"
SCAN = b"Heating costs 2024 " * 40_000


def mail_with_parts() -> bytes:
    """A mail with a text file, and a mail that has a file of its own."""
    inner = EmailMessage()
    inner["From"], inner["Subject"], inner["Message-ID"] = "lea@example.com", "Inner", "<2@x>"
    inner.set_content("See the scan.")
    inner.add_attachment(SCAN, maintype="text", subtype="plain", filename="scan.txt")
    mail = EmailMessage()
    mail["From"], mail["Subject"], mail["Message-ID"] = "lea@example.com", "Outer", "<1@x>"
    mail.set_content("Both are attached.")
    mail.add_attachment("A list", subtype="plain", filename="list.txt")
    mail.add_attachment(inner)
    return mail.as_bytes()


async def documents(api: Api, house: House) -> list[dict[str, Any]]:
    """What the casefile lists."""
    wanted = {"casefile_id": house.casefile_id, "limit": 200}
    return (await api.ask("/v1/documents/list", wanted, token=house["owner"]))["items"]


async def facts(api: Api, house: House, kind: str) -> list[dict[str, Any]]:
    """The casefile's facts of a kind, as the owner reads them."""
    wanted = {"casefile_id": house.casefile_id, "kinds": [kind], "view": "journal"}
    return (await api.ask("/v1/events/query", wanted, token=house["owner"]))["items"]


async def delete(api: Api, house: House, ids: list[str], **more: Any) -> Any:
    """The answer to an admin who deletes."""
    request_id = more.pop("request_id", None)
    fields = {"casefile_id": house.casefile_id, "document_ids": ids, **more}
    return await api.post("/v1/documents/delete", fields, token=house["admin"], request_id=request_id)


async def filed(api: Api, house: House, body: bytes, name: str = "a.eml") -> list[dict[str, Any]]:
    """What the casefile lists after this was filed."""
    await file(api, house, (await upload(api, house, body, name))["upload_id"])
    return await documents(api, house)


async def test_whoever_reads_raw_bytes_is_on_the_record_before_they_go_out(api: Api, house: House) -> None:
    [document] = await filed(api, house, SCAN, "scan.txt")
    path = f"/v1/documents/{document['document_id']}/content?casefile_id={house.casefile_id}"

    read = await api.http.get(path, headers=bearer(house["viewer"]))

    assert hashlib.sha256(read.content).hexdigest() == document["sha256"]
    [fact] = await facts(api, house, "document_read")
    assert fact["inputs"] == {name: document[name] for name in ("document_id", "sha256", "size")}
    assert fact["actor_user_id"] == house.users["viewer"]
    assert fact["permission"]["role"] == "viewer"


async def test_reading_leaves_nothing_where_the_setting_is_off(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "data", record_reads=False) as server, Api.of(server) as api:
        house = await api.house()
        [document] = await filed(api, house, SCAN, "scan.txt")

        assert (await read(api, house, "content", document["document_id"])).content == SCAN
        assert await facts(api, house, "document_read") == []


async def test_a_document_is_deleted_with_all_that_was_attached(api: Api, house: House) -> None:
    [kept] = await filed(api, house, b"Heating stays", "kept.txt")
    found = {one["title"]: one for one in await filed(api, house, mail_with_parts()) if one != kept}
    assert len(found) == 4

    gone = await delete(api, house, [found["Outer"]["document_id"]], reason="Not ours")

    assert gone.json()["payload"] == {
        "casefile_id": house.casefile_id,
        "document_ids": [found["Outer"]["document_id"]],
        "deleted": True,
    }
    assert [one["document_id"] for one in await documents(api, house)] == [kept["document_id"]]
    searched = await api.run(
        house["viewer"], "document_search", {"query": "heating"}, casefile_id=house.casefile_id
    )
    hits = searched.json()["payload"]["outputs"]["items"]
    assert [hit["document_id"] for hit in hits] == [kept["document_id"]]
    [fact] = await facts(api, house, "documents_deleted")
    assert fact["inputs"]["reason"] == "Not ours"
    told = {one["document_id"]: one["sha256"] for one in fact["inputs"]["documents"]}
    assert told == {one["document_id"]: one["sha256"] for one in found.values()}
    assert "Heating" not in str(fact)
    for one in found.values():
        for path in ("get", "content"):
            answer = await read(api, house, path, one["document_id"])
            assert_problem(answer, 404, "document_not_found")
    blobs = api.server.storage.directory / "blobs" / house.casefile_id
    assert [blob.name for blob in blobs.iterdir()] == []


async def read(api: Api, house: House, how: str, document_id: str) -> Any:
    """A document or its raw bytes."""
    if how == "get":
        fields = {"casefile_id": house.casefile_id, "document_id": document_id}
        return await api.post("/v1/documents/get", fields, token=house["owner"])
    path = f"/v1/documents/{document_id}/content?casefile_id={house.casefile_id}"
    return await api.http.get(path, headers=bearer(house["owner"]))


async def test_what_was_deleted_can_be_brought_in_again(api: Api, house: House) -> None:
    [first] = await filed(api, house, SCAN, "scan.txt")
    await delete(api, house, [first["document_id"]])

    [again] = await filed(api, house, SCAN, "scan.txt")

    assert (again["sha256"], again["document_id"] != first["document_id"]) == (first["sha256"], True)
    assert (await read(api, house, "content", again["document_id"])).content == SCAN


async def test_a_repeat_answers_the_same_and_deletes_nothing_more(api: Api, house: House) -> None:
    [first] = await filed(api, house, SCAN, "scan.txt")
    ids = [first["document_id"]]
    one = await delete(api, house, ids, request_id="once")
    await filed(api, house, SCAN, "scan.txt")

    two = await delete(api, house, ids, request_id="once")

    assert two.json()["payload"] == one.json()["payload"]
    assert len(await documents(api, house)) == 1
    assert len(await facts(api, house, "documents_deleted")) == 1


async def test_of_several_documents_all_are_deleted_or_none(api: Api, house: House) -> None:
    [first] = await filed(api, house, SCAN, "scan.txt")

    refused = await delete(api, house, [first["document_id"], NOBODYS])

    assert_problem(refused, 404, "document_not_found")
    assert len(await documents(api, house)) == 1
    assert await facts(api, house, "documents_deleted") == []


async def test_hundreds_of_attachments_go_with_their_mail(api: Api, house: House) -> None:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "lea@example.com", "Many"
    mail.set_content("All are attached.")
    for number in range(450):
        mail.add_attachment(f"file {number}", subtype="plain", filename=f"{number}.txt")
    await filed(api, house, mail.as_bytes())
    wanted = {"casefile_id": house.casefile_id, "kind": "mail"}
    [outer] = (await api.ask("/v1/documents/list", wanted, token=house["owner"]))["items"]

    first = await delete(api, house, [outer["document_id"]], request_id="many")
    second = await delete(api, house, [outer["document_id"]], request_id="many")

    assert first.status_code == second.status_code == 200
    assert await documents(api, house) == []
    told = [
        one for fact in await facts(api, house, "documents_deleted") for one in fact["inputs"]["documents"]
    ]
    assert len({one["document_id"] for one in told}) == len(told) == 451


async def test_nothing_is_deleted_in_an_archived_casefile(api: Api, house: House) -> None:
    [first] = await filed(api, house, SCAN, "scan.txt")
    fields = {"casefile_id": house.casefile_id, "status": "archived"}
    await api.ask("/v1/casefiles/update", fields, token=house["owner"])

    assert_problem(await delete(api, house, [first["document_id"]]), 409, "casefile_archived")
    # Reading is what it is kept for.
    assert (await read(api, house, "content", first["document_id"])).content == SCAN
    assert len(await facts(api, house, "document_read")) == 1


async def test_bytes_that_somebody_took_away_are_a_clean_problem(api: Api, house: House) -> None:
    [first] = await filed(api, house, SCAN, "scan.txt")
    (api.server.storage.directory / "blobs" / house.casefile_id / first["document_id"]).unlink()

    assert_problem(await read(api, house, "content", first["document_id"]), 503, "store_unavailable")
    assert await facts(api, house, "document_read") == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"document_ids": []}, "payload.document_ids"),
        ({"document_ids": ["nonsense"]}, "payload.document_ids.0"),
        ({"document_ids": [NOBODYS], "reason": "x\0"}, "payload.reason"),
        ({"document_ids": [NOBODYS] * 101}, "payload.document_ids"),
    ],
    ids=["none", "no id", "a null character", "too many"],
)
async def test_bad_input_names_the_field(api: Api, house: House, fields: Any, field: str) -> None:
    fields = {"casefile_id": house.casefile_id, **fields}

    answer = await api.post("/v1/documents/delete", fields, token=house["admin"])

    assert_problem(answer, 422, field=field)


async def test_a_blob_that_outlived_its_document_is_swept_after_a_day(tmp_path: Path) -> None:
    clock = SteppableClock()
    async with open_test_server(tmp_path / "data", clock=clock) as server, Api.of(server) as api:
        house = await api.house()
        [document] = await filed(api, house, SCAN, "scan.txt")
        blob = server.storage.directory / "blobs" / house.casefile_id / document["document_id"]
        blob.unlink()
        # What cannot be removed, as on a disk that fails between the deletion and its blob.
        blob.mkdir()
        assert_problem(await delete(api, house, [document["document_id"]]), 503, "store_unavailable")
        assert await documents(api, house) == []
        blob.rmdir()
        blob.write_bytes(SCAN)

        await server.documents.filing.sweep()
        assert blob.exists()
        clock.now += timedelta(hours=25)
        await server.documents.filing.sweep()

        assert not blob.exists()


async def test_a_blob_whose_document_never_came_is_swept_after_a_day(tmp_path: Path) -> None:
    clock = SteppableClock()
    async with (
        open_test_server(tmp_path / "data", clock=clock, casefile_bytes=1_000_000) as server,
        Api.of(server) as api,
    ):
        house = await api.house()
        two = zipped({"one.txt": SCAN + b"1", "two.txt": SCAN + b"2"})
        [document] = await filed(api, house, two, "two.zip")
        blobs = server.storage.directory / "blobs" / house.casefile_id
        assert len(list(blobs.iterdir())) == 3, "both, and the upload"

        clock.now += timedelta(hours=25)
        await server.documents.filing.sweep()

        assert [blob.name for blob in blobs.iterdir()] == [document["document_id"]]
