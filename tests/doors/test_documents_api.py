"""Documents: uploaded, filed, listed, read."""

import hashlib
from pathlib import Path
from typing import Any

from dirty_equals import IsDatetime, IsInt, IsPartialDict, IsStr
from inline_snapshot import snapshot

from tests.doors.problems import assert_problem
from tests.support import Api, House, bearer, open_test_server

MAIL = b"From: Lea <lea@example.com>\r\nTo: sam@example.com\r\nSubject: Rent\r\nDate: Thu, 1 Jan 2026 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nThe rent is late.\r\n"


async def upload(api: Api, house: House, body: Any = MAIL, filename: str = "rent.eml") -> Any:
    """An upload's payload."""
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename={filename}"
    response = await api.http.post(path, content=body, headers=bearer(house["editor"]))
    assert response.status_code == 200, response.text
    return response.json()["payload"]


async def file(api: Api, house: House, upload_id: str) -> Any:
    """What the import said."""
    ran = await api.run(
        house["editor"], "document_import", {"upload_id": upload_id}, casefile_id=house.casefile_id
    )
    return ran.json()["payload"]


async def test_an_upload_answers_with_size_and_digest(api: Api, house: House) -> None:
    assert await upload(api, house) == {
        "upload_id": IsStr(regex="upl_[0-9a-f]{32}"),
        "sha256": hashlib.sha256(MAIL).hexdigest(),
        "size": len(MAIL),
    }


async def test_an_upload_is_taken_as_it_streams(api: Api, house: House) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 1_000_000

    assert (await upload(api, house, chunks(), "big.bin"))["size"] == 20_000_000


async def test_filing_makes_documents_of_an_upload(api: Api, house: House) -> None:
    kept = await upload(api, house)
    assert (await file(api, house, kept["upload_id"]))["outputs"] == {
        "filename": "rent.eml",
        "read": 1,
        "added": 1,
        "attached": 0,
        "by_kind": {"mail": 1},
        "duplicates": 0,
        "unreadable": 0,
        "problems": [],
        "problems_untold": 0,
    }


async def test_an_upload_is_filed_once(api: Api, house: House) -> None:
    kept = await upload(api, house)
    await file(api, house, kept["upload_id"])
    assert (await file(api, house, kept["upload_id"]))["error"]["type"] == "document_not_found"


async def test_the_same_bytes_twice_add_nothing(api: Api, house: House) -> None:
    filed = [await file(api, house, (await upload(api, house))["upload_id"]) for _ in range(2)]
    assert filed[1]["outputs"] == IsPartialDict(read=1, added=0, duplicates=1)


async def test_a_document_is_read_with_its_text(api: Api, house: House) -> None:
    filed = await file(api, house, (await upload(api, house))["upload_id"])
    payload = {"casefile_id": house.casefile_id}
    [listed] = (await api.ask("/v1/documents/list", payload, token=house["viewer"]))["items"]
    payload |= {"document_id": listed["document_id"]}
    assert await api.ask("/v1/documents/get", payload, token=house["viewer"]) == snapshot(
        {
            "document_id": listed["document_id"],
            "casefile_id": house.casefile_id,
            "kind": "mail",
            "title": "Rent",
            "sender": IsStr(regex=".*lea@example.com.*"),
            "parent_id": None,
            "recipients": [IsStr(regex=".*sam@example.com.*")],
            "cc": [],
            "bcc": [],
            "sent_at": "2026-01-01T10:00:00Z",
            "labels": [],
            "filenames": [],
            "thread_id": None,
            "message_id": IsStr,
            "references": [],
            "problem": None,
            "size": IsInt(gt=0),
            "sha256": IsStr(regex="[0-9a-f]{64}"),
            "created_at": IsDatetime(iso_string=True),
            "created_by": "editor@example.com",
            "event_id": filed["event_id"],
            "source": "rent.eml",
            "metadata": {},
            "text": IsStr(regex=r"The rent is late\.\s*"),
        }
    )


async def test_a_document_of_another_casefile_is_not_found_here(api: Api, house: House) -> None:
    await file(api, house, (await upload(api, house))["upload_id"])
    payload = {"casefile_id": house.casefile_id}
    [listed] = (await api.ask("/v1/documents/list", payload, token=house["owner"]))["items"]
    other = await api.casefile(house["owner"])
    payload = {"casefile_id": other, "document_id": listed["document_id"]}
    response = await api.post("/v1/documents/get", payload, token=house["owner"])
    assert_problem(response, 404, "document_not_found")


async def test_documents_are_listed_by_kind(api: Api, house: House) -> None:
    await file(api, house, (await upload(api, house))["upload_id"])
    await api.run(house["editor"], "note_add", {"text": "late again"}, casefile_id=house.casefile_id)
    kinds: dict[str, int] = {}
    for kind in ("mail", "note", "file"):
        payload = {"casefile_id": house.casefile_id, "kind": kind}
        page = await api.ask("/v1/documents/list", payload, token=house["viewer"])
        kinds[kind] = len(page["items"])
    assert kinds == {"mail": 1, "note": 1, "file": 0}


async def test_mail_is_found_by_viewers(api: Api, house: House) -> None:
    await file(api, house, (await upload(api, house))["upload_id"])
    ran = await api.run(
        house["viewer"], "gmail_search", {"query": "from:lea rent"}, casefile_id=house.casefile_id
    )
    outputs = ran.json()["payload"]["outputs"]
    assert (outputs["source"], [m["title"] for m in outputs["messages"]]) == ("archive", ["Rent"])


async def test_a_search_finds_nothing_of_another_casefile(api: Api, house: House) -> None:
    await file(api, house, (await upload(api, house))["upload_id"])
    other = await api.casefile(house["owner"])
    ran = await api.run(house["owner"], "mail_search", {"query": "rent"}, casefile_id=other)
    assert ran.json()["payload"]["outputs"]["messages"] == []


async def test_an_upload_to_another_casefile_cannot_be_filed_here(api: Api, house: House) -> None:
    kept = await upload(api, house)
    other = await api.casefile(house["editor"])
    ran = await api.run(
        house["editor"], "document_import", {"upload_id": kept["upload_id"]}, casefile_id=other
    )
    assert ran.json()["payload"]["error"]["type"] == "document_not_found"


async def test_a_long_document_is_read_in_parts(api: Api, house: House) -> None:
    added = await api.run(
        house["editor"],
        "note_add",
        {"text": "0123456789" * 3, "title": "Long"},
        casefile_id=house.casefile_id,
    )
    wanted = {"document_id": added.json()["payload"]["outputs"]["document_id"], "offset": 8, "limit": 4}
    ran = await api.run(house["viewer"], "document_get", wanted, casefile_id=house.casefile_id)
    assert ran.json()["payload"]["outputs"] == IsPartialDict(text="8901", offset=8, total=30, title="Long")


async def test_documents_of_any_kind_are_searched(api: Api, house: House) -> None:
    await file(api, house, (await upload(api, house))["upload_id"])
    await api.run(house["editor"], "note_add", {"text": "about the rent"}, casefile_id=house.casefile_id)
    wanted = {"query": "rent", "limit": 1, "facets": True}
    ran = await api.run(house["viewer"], "document_search", wanted, casefile_id=house.casefile_id)
    first = ran.json()["payload"]["outputs"]
    wanted |= {"cursor": first["next_cursor"]}
    ran = await api.run(house["viewer"], "document_search", wanted, casefile_id=house.casefile_id)
    second = ran.json()["payload"]["outputs"]
    assert {first["items"][0]["kind"], second["items"][0]["kind"]} == {"mail", "note"}
    assert (first["facets"]["total"], second["facets"], second["has_more"]) == (2, None, False)


async def test_a_cursor_of_another_search_fails_the_operation(api: Api, house: House) -> None:
    wanted = {"query": "rent", "cursor": "bm9uc2Vuc2U"}
    ran = await api.run(house["viewer"], "mail_search", wanted, casefile_id=house.casefile_id)
    assert ran.json()["payload"]["error"]["type"] == "cursor_invalid"


async def test_a_conversation_is_listed_oldest_first(api: Api, house: House) -> None:
    answer = MAIL.replace(b"<1@x>", b"<2@x>\r\nIn-Reply-To: <1@x>").replace(b"Subject: ", b"Subject: Re: ")
    answer = answer.replace(b"1 Jan", b"2 Jan").replace(b"Thu", b"Fri")
    for body in (answer, MAIL):
        await file(api, house, (await upload(api, house, body))["upload_id"])
    [newest, _] = (
        await api.run(
            house["viewer"], "mail_search", {"query": "", "order": "newest"}, casefile_id=house.casefile_id
        )
    ).json()["payload"]["outputs"]["messages"]
    ran = await api.run(
        house["viewer"], "mail_thread", {"document_id": newest["document_id"]}, casefile_id=house.casefile_id
    )
    assert [m["title"] for m in ran.json()["payload"]["outputs"]["messages"]] == ["Rent", "Re: Rent"]


async def test_only_mail_has_a_conversation(api: Api, house: House) -> None:
    added = await api.run(house["editor"], "note_add", {"text": "a"}, casefile_id=house.casefile_id)
    wanted = {"document_id": added.json()["payload"]["outputs"]["document_id"]}
    for name in ("mail_thread", "mail_get"):
        ran = await api.run(house["viewer"], name, wanted, casefile_id=house.casefile_id)
        assert ran.json()["payload"]["error"]["type"] == "document_not_found"


async def test_a_casefile_takes_no_more_than_it_may_hold(tmp_path: Path) -> None:
    async with open_test_server(tmp_path / "small", casefile_bytes=1000) as server, Api.of(server) as api:
        house = await api.house()
        fits = await api.run(house["editor"], "note_add", {"text": "x" * 300}, casefile_id=house.casefile_id)
        full = await api.run(house["editor"], "note_add", {"text": "x" * 900}, casefile_id=house.casefile_id)
        again = await api.run(house["editor"], "note_add", {"text": "y" * 300}, casefile_id=house.casefile_id)
        counted = await api.run(house["viewer"], "casefile_summary", casefile_id=house.casefile_id)
    assert [ran.json()["payload"]["success"] for ran in (fits, full, again)] == [True, False, True]
    assert full.json()["payload"]["error"]["type"] == "casefile_full"
    assert counted.json()["payload"]["outputs"] == IsPartialDict(documents=2, bytes=IsInt(lt=1000))
