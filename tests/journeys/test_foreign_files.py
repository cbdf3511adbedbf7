"""Files that nobody here wrote, as they are and damaged at random: none is lost, none ends or holds up the reader.

`FILES_SEED=n` replays a seed, which is printed; `SOAK=1` goes on for five minutes.
"""

import hashlib
import io
import os
import random
import sys
import time
import zipfile
from collections.abc import AsyncGenerator, Callable, Sequence
from email import message_from_bytes, policy
from importlib.util import find_spec
from pathlib import Path

import pytest

from casekeeper.documents.document import INLINE_BYTES
from casekeeper.reading.contents import REMARK
from casekeeper.reading.mail import UnreadableMail, parse_mail
from casekeeper.reading.readers import Arrived, Readers
from tests.fakes.corpus import spam_assassin
from tests.journeys.support import soaking
from tests.support import Api, House, bearer, unavailable
from tests.unit.reading.made import docx, mail_with, pdf, tarred, xlsx, zipped

pytestmark = pytest.mark.timeout(900)

_ROUND = 150
_SPLINTERS = (
    *(
        b"\0",
        b"\r\n\r\n",
        b"\n\nFrom x 10:00\n",
        b"--x\r\n",
        b"=?utf-8?b?",
        b"=?",
        b"?=",
        b"<" * 500,
        b'"' * 500,
    ),
    *(b"Content-Type: multipart/mixed; boundary=", b"Content-Transfer-Encoding: base64\r\n", b"PK\x03\x04"),
    *(
        b"charset=undefined",
        b"%PDF-1.7",
        b"<div>" * 300,
        b"\xff\xfe",
        b"(" * 3000,
        b"Date: 1 Jan 99999 0:0\r\n",
    ),
)


def cpythons_mails() -> dict[str, bytes]:
    """The e-mail test data of CPython, which comes with it."""
    home = find_spec("test")
    folder = Path(home.origin or "").parent / "test_email" / "data" if home else Path()
    if not folder.is_dir():
        unavailable("CPython's own test data (Debian: libpython3-testsuite)")
    mails = {path.name: path.read_bytes() for path in sorted(folder.glob("*.txt"))}
    assert len(mails) > 40
    return mails


def test_a_mail_of_cpythons_tests_says_what_the_standard_library_says() -> None:
    others: dict[str, tuple[str, str]] = {}
    for name, raw in cpythons_mails().items():
        theirs = message_from_bytes(raw, policy=policy.default)
        subject = " ".join(str(theirs["subject"] or "").split())
        try:
            ours = parse_mail(raw).subject
        except UnreadableMail:
            ours = ""
        if ours != subject:
            others[name] = (ours, subject)

    assert others == {}


async def test_every_mail_of_cpythons_tests_is_kept_byte_by_byte(api: Api, house: House) -> None:
    mails = cpythons_mails()
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=cpython.zip"
    kept = await api.http.post(path, content=zipped(mails), headers=bearer(house["editor"]))
    wanted = {"upload_id": kept.json()["payload"]["upload_id"]}
    ran = await api.run(house["editor"], "document_import", wanted, casefile_id=house.casefile_id)
    assert ran.json()["payload"]["success"]

    listed = await api.ask(
        "/v1/documents/list", {"casefile_id": house.casefile_id, "limit": 200}, token=house["viewer"]
    )
    digests = {one["sha256"] for one in listed["items"]}
    lost = [name for name, raw in mails.items() if raw and hashlib.sha256(raw).hexdigest() not in digests]
    assert lost == []


async def test_whatever_is_damaged_is_kept_and_holds_nobody_up(tmp_path: Path) -> None:
    seed = int(os.environ.get("FILES_SEED") or time.time_ns() % 10**9)  # noqa: TID251 - not a setting of casekeeper
    sys.stdout.write(f"FILES_SEED={seed}\n")
    chance = random.Random(seed)
    mails = [*cpythons_mails().values(), *list(spam_assassin().values())[::20]]
    others = _others()
    readers = Readers(tmp_path / "spool", document_bytes=2**31, inline_bytes=INLINE_BYTES)
    ends, files = time.monotonic() + (300 if soaking() else 8), 0
    try:
        while time.monotonic() < ends:
            damaged = [_damaged(chance, mails) for _ in range(_ROUND)] + [
                _damaged(chance, others) for _ in range(_ROUND // 5)
            ]
            items = [item async for item in _read(readers, damaged)]

            killed = [
                item.fields["source"] for item in items if "took too long" in (item.fields["problem"] or "")
            ]
            assert killed == [], f"FILES_SEED={seed}: {killed} of round {files // len(damaged)}"
            digests = {item.fields["sha256"] for item in items}
            lost = [n for n, raw in enumerate(damaged[:_ROUND]) if raw and _is_lost(raw, digests)]
            assert lost == [], f"FILES_SEED={seed}: {lost} of round {files // len(damaged)}"
            for item in items:
                item.fields["text"].encode()
                assert "\0" not in item.fields["text"] + item.fields["title"]
            files += len(damaged)
    finally:
        readers.close()
    sys.stdout.write(f"{files:,} damaged files\n")


def _is_lost(raw: bytes, digests: set[str]) -> bool:
    # What became a mailbox is kept as its mails, what became an archive as its files.
    is_whole = raw[:2] not in (b"PK", b"\x1f\x8b") and b"From " not in raw
    return is_whole and hashlib.sha256(raw).hexdigest() not in digests


async def _read(readers: Readers, files: Sequence[bytes]) -> AsyncGenerator[Arrived]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, raw in enumerate(files):
            archive.writestr(f"{number:04}", raw)
    with open(os.memfd_create("files"), "w+b") as file:
        file.write(packed.getvalue())
        file.flush()
        async for batch in readers.read(file, "files.zip"):
            for item in batch:
                if item.raw is None:
                    async for _ in item.chunks():
                        pass
                if item.fields["kind"] != REMARK:
                    yield item


def _others() -> list[bytes]:
    inner = docx("Rent", "is due"), pdf("Rent is due"), xlsx("<row><c><v>1</v></c></row>")
    files = {f"{number}.bin": raw for number, raw in enumerate(inner)}
    attached = [(name, "application/octet-stream", raw) for name, raw in files.items()]
    return [*inner, zipped(files), tarred(files), tarred(files, "w:gz"), mail_with(*attached)]


def _damaged(chance: random.Random, files: Sequence[bytes]) -> bytes:
    raw = bytearray(chance.choice(files)[:200_000])
    for _ in range(chance.randint(1, 6)):
        chance.choice(_WAYS)(chance, raw, files)
    return bytes(raw)


def _place(chance: random.Random, raw: bytearray) -> int:
    # Half of all damage hits the beginning, where headers are.
    return chance.randrange(max(1, min(len(raw), 800) if chance.random() < 0.5 else len(raw)))


def _flip(chance: random.Random, raw: bytearray, files: Sequence[bytes]) -> None:
    for _ in range(chance.randint(1, 20) if raw else 0):
        raw[_place(chance, raw)] = chance.randrange(256)


def _cut(chance: random.Random, raw: bytearray, files: Sequence[bytes]) -> None:
    at = _place(chance, raw)
    del raw[at : at + chance.choice((1, 10, 1000, len(raw)))]


def _insert(chance: random.Random, raw: bytearray, files: Sequence[bytes]) -> None:
    at = _place(chance, raw)
    raw[at:at] = chance.choice(_SPLINTERS) * chance.choice((1, 1, 50))


def _double(chance: random.Random, raw: bytearray, files: Sequence[bytes]) -> None:
    at, size = _place(chance, raw), chance.choice((1, 30, 3000))
    raw[at:at] = raw[at : at + size] * chance.choice((1, 2, 100))


def _splice(chance: random.Random, raw: bytearray, files: Sequence[bytes]) -> None:
    other = chance.choice(files)
    raw[_place(chance, raw) :] = other[chance.randrange(max(1, len(other))) :][:200_000]


_WAYS: Sequence[Callable[[random.Random, bytearray, Sequence[bytes]], None]] = (
    _flip,
    _cut,
    _insert,
    _double,
    _splice,
)
