"""Thousands of real mails, damaged ones among them, through the HTTP door into one casefile."""

import hashlib
import io
import zipfile
from typing import Any

import pytest

from tests.fakes.corpus import spam_assassin
from tests.support import Api, House, Json, bearer

pytestmark = pytest.mark.timeout(300)


async def imported(api: Api, house: House, packed: bytes) -> Json:
    """What the import of an archive said."""
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=corpus.zip"
    kept = await api.http.post(path, content=packed, headers=bearer(house["editor"]))
    wanted = {"upload_id": kept.json()["payload"]["upload_id"]}
    ran = await api.run(house["editor"], "document_import", wanted, casefile_id=house.casefile_id)
    payload = ran.json()["payload"]
    assert payload["success"], payload
    return payload["outputs"]


async def documents_of(api: Api, house: House) -> dict[str, Json]:
    """All documents by the digest of their bytes."""
    found: dict[str, Json] = {}
    cursor: Any = None
    while True:
        payload = {"casefile_id": house.casefile_id, "limit": 200, "cursor": cursor}
        page = await api.ask("/v1/documents/list", payload, token=house["viewer"])
        found |= {document["sha256"]: document for document in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_of_six_thousand_real_mails_none_is_lost_and_none_comes_twice(api: Api, house: House) -> None:
    mails = spam_assassin()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, raw in mails.items():
            archive.writestr(name, raw)

    first = await imported(api, house, packed.getvalue())
    documents = await documents_of(api, house)
    again = await imported(api, house, packed.getvalue())

    wanted = {hashlib.sha256(raw).hexdigest(): name for name, raw in mails.items()}
    assert len(wanted) == 6046
    assert [name for digest, name in wanted.items() if digest not in documents] == []
    assert [name for digest, name in wanted.items() if documents[digest]["kind"] != "mail"] == []
    assert first["added"] == len(documents)
    assert (again["added"], again["duplicates"]) == (0, again["read"])
    for digest, name in list(wanted.items())[::40]:
        path = f"/v1/documents/{documents[digest]['document_id']}/content?casefile_id={house.casefile_id}"
        answer = await api.http.get(path, headers=bearer(house["viewer"]))
        assert (answer.status_code, answer.content == mails[name]) == (200, True)
