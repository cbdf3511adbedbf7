"""Imports through the door: a process that dies costs nothing but the text of what ended it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from dirty_equals import IsPartialDict

from tests.doors.test_documents_api import file, upload
from tests.support import Api, House, bearer
from tests.unit.reading.made import mail, mail_with, pdf, zipped


async def imported(api: Api, house: House, body: bytes, filename: str) -> Any:
    """What an import answers."""
    return (await file(api, house, (await upload(api, house, body, filename))["upload_id"]))["outputs"]


async def found(api: Api, house: House, query: str) -> list[Any]:
    """What a search finds."""
    ran = await api.run(house["viewer"], "document_search", {"query": query}, casefile_id=house.casefile_id)
    return ran.json()["payload"]["outputs"]["items"]


async def content(api: Api, house: House, document_id: str) -> Any:
    """The answer with a document's raw bytes."""
    path = f"/v1/documents/{document_id}/content?casefile_id={house.casefile_id}"
    return await api.http.get(path, headers=bearer(house["viewer"]))


async def test_the_raw_bytes_come_back_as_they_came_and_run_nowhere(api: Api, house: House) -> None:
    raw = b"<html><script>steal()</script><p>pears</p></html>"
    await imported(api, house, zipped({'a\u202e"b.html': raw, "\u00fc.pdf": pdf("Rent")}), "a.zip")
    [page] = await found(api, house, "pears")

    answer = await content(api, house, page["document_id"])

    assert answer.content == raw
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"a _b.html\"; filename*=UTF-8''a%20%22b.html"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["etag"] == f'"{page["sha256"]}"'


async def test_content_of_no_document_is_not_found(api: Api, house: House) -> None:
    answer = await content(api, house, "doc_" + "0" * 32)
    assert answer.status_code in (404, 422)


async def test_an_attachment_is_found_by_its_text_and_its_name_and_names_its_mail(
    api: Api, house: House
) -> None:
    raw = mail_with(("lease.pdf", "application/pdf", pdf("Deposit of nine hundred")), subject="The lease")

    report = await imported(api, house, raw, "lease.eml")

    assert report == IsPartialDict(read=2, added=2, attached=1, by_kind={"mail": 1, "pdf": 1}, unreadable=0)
    [attached] = await found(api, house, "deposit")
    [parent] = await found(api, house, "from:a@example.com")
    assert (attached["kind"], attached["parent_id"]) == ("pdf", parent["document_id"])
    assert {one["kind"] for one in await found(api, house, "filename:lease.pdf")} == {"mail", "pdf"}


async def test_an_attachment_of_a_mail_that_is_there_already_names_that_mail(api: Api, house: House) -> None:
    raw = mail_with(("a.txt", "text/plain", b"apples"))
    await imported(api, house, raw, "one.eml")
    [listed] = await found(api, house, "apples")

    report = await imported(api, house, zipped({"one.eml": raw}), "again.zip")

    assert report == IsPartialDict(read=2, added=0, duplicates=2)
    assert [one["parent_id"] for one in await found(api, house, "apples")] == [listed["parent_id"]]


async def test_a_large_document_is_kept_whole(api: Api, house: House) -> None:
    body = b" ".join(b"word%d" % number for number in range(50_000))

    report = await imported(api, house, zipped({"long.txt": body, "b.eml": mail("after it")}), "a.zip")

    assert report == IsPartialDict(added=2, unreadable=0)
    [document] = await found(api, house, "word777")
    assert (await content(api, house, document["document_id"])).content == body


async def test_what_cannot_be_read_is_reported_with_its_reason(api: Api, house: House) -> None:
    report = await imported(api, house, pdf("x", encrypted=True), "secret.pdf")

    [problem] = report["problems"]
    assert problem == IsPartialDict(source="secret.pdf", problems=["It is encrypted; a password is needed."])
    assert report["unreadable"] == 1


def children(directory: Path) -> list[int]:
    """The processes that look into uploads for this directory."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in command and b"casekeeper.reading.worker" in command:
                found.append(int(entry.name))
    return found


async def test_killing_the_process_in_the_middle_loses_and_repeats_nothing(api: Api, house: House) -> None:
    body = b"".join(b"From x\n" + mail(f"number {n}") + b"\n" for n in range(3000))
    kept = await upload(api, house, body, "all.mbox")
    running = asyncio.ensure_future(file(api, house, kept["upload_id"]))
    killed = False
    for _ in range(2000):
        await asyncio.sleep(0.005)
        counts = await api.server.storage.documents.counts(house.casefile_id)
        if counts.documents:
            for pid in children(api.server.settings.data):
                os.kill(pid, signal.SIGKILL)
                killed = True
            break

    report = (await running)["outputs"]

    assert killed
    assert report == IsPartialDict(read=3000, added=3000, duplicates=0)
    # The one that seemed to have ended it may be without its text, none without its bytes.
    assert report["unreadable"] <= 1


async def test_no_process_outlives_the_server(api: Api, house: House) -> None:
    await imported(api, house, mail("one"), "one.eml")
    directory = api.server.settings.data
    assert children(directory)


async def test_a_cancelled_import_leaves_whole_documents_and_goes_on_when_repeated(
    api: Api, house: House
) -> None:
    body = b"".join(b"From x\n" + mail(f"number {n}") + b"\n" for n in range(3000))
    kept = await upload(api, house, body, "all.mbox")
    ran = await api.run(
        house["editor"],
        "document_import",
        {"upload_id": kept["upload_id"]},
        casefile_id=house.casefile_id,
        mode="background",
    )
    event_id = ran.json()["payload"]["event_id"]
    for _ in range(2000):
        await asyncio.sleep(0.005)
        if (await api.server.storage.documents.counts(house.casefile_id)).documents:
            break
    await api.ask("/v1/operations/cancel", {"event_id": event_id}, token=house["editor"])
    filed = (await api.server.storage.documents.counts(house.casefile_id)).documents

    report = (await file(api, house, kept["upload_id"]))["outputs"]

    assert 0 < filed <= 3000
    assert report == IsPartialDict(read=3000, unreadable=0)
    assert (await api.server.storage.documents.counts(house.casefile_id)).documents == 3000


async def test_an_upload_whose_bytes_are_swept_is_not_there(api: Api, house: House) -> None:
    made = await upload(api, house, b"Heating costs 2024", "costs.txt")
    await api.server.storage.blobs.remove(house.casefile_id, made["upload_id"])

    ended = await file(api, house, made["upload_id"])

    assert (ended["success"], ended["error"]["type"]) == (False, "document_not_found")
