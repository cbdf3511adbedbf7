"""What comes out of an upload: every file of it, as what it is, and a reason for whatever could not be taken."""

import bz2
import gzip
import hashlib
import io
import lzma
import zipfile
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.reading.archives import Budget, path_of
from casekeeper.reading.contents import REMARK, Contents, Item
from tests.unit.reading.made import docx, mail, mail_with, pdf, tarred, xlsx, zipped


def items(raw: bytes, name: str = "upload", budget: Budget | None = None) -> list[Item]:
    found: list[Item] = []
    for item in Contents(budget or Budget()).items(io.BytesIO(raw), name):
        if not isinstance(item.raw, bytes):
            # The file of an entry is closed behind it.
            item.raw.seek(0)
            item.raw = item.raw.read()
        found.append(item)
    return found


def told(raw: bytes, name: str = "upload", budget: Budget | None = None) -> list[tuple[str, str, str | None]]:
    return [(item.kind, item.source, item.problem) for item in items(raw, name, budget)]


@pytest.mark.parametrize(
    ("name", "raw", "kind", "text"),
    [
        ("a.txt", b"Gr\xc3\xbc\xc3\x9fe", "text", "Grüße"),
        ("a.txt", b"Gr\xfc\xdfe", "text", "Grüße"),
        ("a.txt", "Grüße".encode("utf-16"), "text", "Grüße"),
        ("notes.md", b"# Rent\nDate: today", "markdown", "# Rent\nDate: today"),
        (
            "notes.txt",
            b"Subject: to change\n\nThis is prose.",
            "text",
            "Subject: to change\n\nThis is prose.",
        ),
        ("costs.csv", b"a,b\r\n1,2\r\n", "csv", "a,b\n1,2\n"),
        ("page.html", b"<html><script>x()</script><p>Rent &amp; more</p></html>", "html", "Rent & more"),
        ("page", b"<!DOCTYPE html><p>Rent</p>", "html", "Rent"),
        ("a.docx", docx("One", "Two"), "docx", "One\nTwo\n"),
        ("a.pdf", pdf("Rent is due"), "pdf", "Rent is due"),
        ("a.png", b"\x89PNG\r\n\x1a\n....", "image", ""),
    ],
)
def test_a_file_is_read_as_what_it_is(name: str, raw: bytes, kind: str, text: str):
    [item] = items(raw, name)

    assert (item.kind, item.text.strip(), item.problem) == (kind, text.strip(), None)
    assert (item.raw, item.sha256) == (raw, hashlib.sha256(raw).hexdigest())


def test_a_sheet_shows_formulas_with_their_values_and_dates_as_dates():
    rows = (
        '<row><c t="s"><v>0</v></c><c s="1"><v>45292</v></c></row>'
        "<row><c><v>2</v></c><c><f>A2*2</f><v>4</v></c></row>"
    )
    raw = xlsx(rows, strings="<si><t>Rent</t></si>")

    [item] = items(raw, "a.xlsx")

    assert item.text == "Costs\nRent\t2024-01-01\n2\t=A2*2 → 4\n\n"


def test_a_sheet_of_an_old_mac_counts_its_days_from_1904():
    [item] = items(xlsx('<row><c s="1"><v>0</v></c></row>', date1904=True), "a.xlsx")

    assert "1904-01-01" in item.text


def test_a_pdf_with_a_password_is_kept_and_reported():
    raw = pdf("secret", encrypted=True)

    [item] = items(raw, "a.pdf")

    assert (item.raw, item.problem) == (raw, "It is encrypted; a password is needed.")


@pytest.mark.parametrize("kind", ["pdf", "docx", "xlsx"])
def test_a_damaged_file_is_kept_and_reported(kind: str):
    raw = {"pdf": b"%PDF-1.4\nnothing", "docx": docx("x")[:-1], "xlsx": b""}[kind]
    if kind == "docx":
        raw = zipped({"[Content_Types].xml": b"", "word/document.xml": b"<a"})
    if kind == "xlsx":
        raw = zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b"<a"})

    [item] = items(raw, f"a.{kind}")

    assert item.kind == kind
    assert (item.problem or "").startswith("It is damaged")


def test_entities_that_multiply_do_no_harm():
    bomb = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%b">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(10)
    )
    raw = zipped({"[Content_Types].xml": b"", "word/document.xml": bomb + b"]><a>&k;</a>"})

    [item] = items(raw, "a.docx")

    assert len(item.text) < 2_000_000


def test_a_lying_name_is_reported_and_the_content_counts():
    [item] = items(pdf("Rent"), "holiday.png")

    assert item.kind == "pdf"
    assert item.metadata["problems"] == ["It is named .png, but its content is of the kind pdf."]


def test_every_file_of_an_archive_comes_with_its_path():
    raw = zipped({"in/a.txt": b"one", "in/b.eml": mail("two"), "in/": b""})

    assert told(raw, "all.zip") == [("text", "all.zip/in/a.txt", None), ("mail", "all.zip/in/b.eml", None)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_are_opened_however_they_are_packed(mode: str):
    raw = tarred({"a.txt": b"one", "dir/b.txt": b"two"}, mode)

    assert [item.text for item in items(raw, "all.tar")] == ["one", "two"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_mailbox_gives_its_mails(pack: object):
    mailbox = b"From x\n" + mail("one") + b"\n\nFrom x\n" + mail("two")
    packed = cast("bytes", pack(mailbox))  # type: ignore[operator]

    assert [item.title for item in items(packed, "all.mbox.gz")] == ["one", "two"]


def test_a_maildir_in_an_archive_gives_its_mails():
    raw = tarred({"Maildir/cur/1.host:2,S": mail("one"), "Maildir/new/2.host": mail("two")})

    assert [(item.kind, item.title) for item in items(raw, "m.tar")] == [("mail", "one"), ("mail", "two")]


def test_archives_in_archives_are_opened_and_too_deep_ones_kept():
    raw = b"deep"
    for _ in range(6):
        raw = zipped({"a.zip" if raw != b"deep" else "a.txt": raw})

    [item] = items(raw, "a.zip")

    assert (item.kind, item.problem) == ("archive", "Archives are opened 4 deep; this one lies deeper.")


def test_paths_that_lead_out_are_cut_and_reported():
    [item] = items(zipped({"../../etc/passwd": b"root"}), "a.zip")

    assert item.source == "a.zip/etc/passwd"
    assert item.metadata["problems"] == ["Its path leads out of the archive; that is ignored."]


def test_links_and_devices_are_reported_and_not_followed():
    raw = tarred({"a.txt": b"one"}, links={"b": "/etc/passwd"})

    assert told(raw, "a.tar") == [
        ("text", "a.tar/a.txt", None),
        (REMARK, "a.tar/b", "It is a link or a device, not a file."),
    ]


def test_a_link_in_a_zip_is_not_followed():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")

    assert told(out.getvalue(), "a.zip") == [(REMARK, "a.zip/link", "It is a link or a device, not a file.")]


def test_an_encrypted_entry_keeps_the_archive_raw():
    raw = bytearray(zipped({"a.txt": b"one", "b.txt": b"two"}, packing=zipfile.ZIP_STORED))
    # The flag of the first entry, in its own header and in the directory.
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1

    assert told(bytes(raw), "a.zip") == [
        (REMARK, "a.zip/a.txt", "It is encrypted."),
        ("text", "a.zip/b.txt", None),
        ("archive", "a.zip", "a.txt: It is encrypted."),
    ]


def test_an_archive_cut_off_in_the_middle_gives_what_there_is_and_is_kept():
    raw = tarred({"a.txt": b"one" * 1000, "b.txt": b"two" * 1000})[:4000]

    kinds = [item.kind for item in items(raw, "a.tar")]

    assert kinds[0] == "text"
    assert kinds[-1] == "archive"


def test_what_expands_beyond_the_limit_is_kept_packed():
    bomb = zipped({"zeros": bytes(100_000)})

    [remark, kept] = items(bomb, "bomb.zip", Budget(entry=50_000))

    assert (remark.kind, remark.problem) == (REMARK, "It is larger than a document may be.")
    assert (kept.kind, kept.raw) == ("archive", bomb)


def test_a_bomb_is_stopped_by_what_it_expands_to():
    bomb = zipped({"zeros": bytes(80 * 1024 * 1024)})

    problems = [item.problem for item in items(bomb, "bomb.zip")]

    assert problems[0] == "It expands to more than 200 times its size."


def test_all_archives_of_an_upload_share_one_budget():
    inner = zipped({f"{n}.txt": bytes(1000) for n in range(50)}, packing=zipfile.ZIP_STORED)
    raw = zipped({"a.zip": inner, "b.zip": inner})

    found = told(raw, "all.zip", Budget(total=120_000))

    assert found[-1][0] == "archive"
    assert "expands to more than an upload may" in (found[-1][2] or "")


def test_too_many_entries_are_cut():
    raw = zipped({f"{n}.txt": b"x" for n in range(20)})

    found = told(raw, "all.zip", Budget(entries=10))

    assert [kind for kind, _, _ in found] == ["text"] * 10 + ["archive"]


@given(st.text(max_size=60))
def test_no_path_leads_out_or_hides_what_it_is(name: str):
    path, _ = path_of(name)

    assert path
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert not set(path) & set("\x00\x1b\u202e\u2066\\")


def test_attachments_are_children_of_their_mail():
    raw = mail_with(("a.pdf", "application/pdf", pdf("Rent is due")), ("b.csv", "text/csv", b"a,b\n"))

    [parent, first, second] = items(raw, "m.eml")

    assert (parent.kind, parent.filenames, parent.has_children) == ("mail", ("a.pdf", "b.csv"), True)
    assert [(item.kind, item.parent) for item in (first, second)] == [("pdf", 0), ("csv", 0)]
    assert first.text.strip() == "Rent is due"


def test_an_attached_mail_has_its_own_attachments():
    inner = mail_with(("c.txt", "text/plain", b"deep"), subject="Inner")
    inner = inner.replace(b'"x"', b'"y"').replace(b"--x", b"--y")

    found = items(mail_with(("inner.eml", "message/rfc822", inner)), "m.eml")

    assert [(item.kind, item.parent) for item in found] == [("mail", None), ("mail", 0), ("text", 1)]


def test_an_entry_of_a_zip_without_a_name_is_taken():
    raw = bytearray(zipped({"a": b"Rent is due"}, packing=zipfile.ZIP_STORED))
    central = raw.index(b"PK\x01\x02")
    # What was its name counts as an extra field, in the entry's own header and in the list of all entries.
    for names, extras in ((26, 28), (central + 28, central + 30)):
        raw[names], raw[extras] = 0, 1

    assert told(bytes(raw)) == [("text", "upload/unnamed", None)]


def test_an_attached_archive_is_kept_and_opened():
    raw = mail_with(("a.zip", "application/zip", zipped({"x.txt": b"one"}, packing=zipfile.ZIP_STORED)))

    assert [(item.kind, item.parent) for item in items(raw, "m.eml")] == [
        ("mail", None),
        ("archive", 0),
        ("text", 1),
    ]


def test_an_empty_file_is_reported():
    assert told(zipped({"a.txt": b""}), "a.zip") == [("file", "a.zip/a.txt", "It is empty.")]


def test_what_ended_a_process_is_kept_as_it_is():
    raw = zipped({"a.txt": b"one", "b.eml": mail("two"), "c.txt": b"three"})

    found = list(Contents(Budget(), as_is=frozenset([1, 2])).items(io.BytesIO(raw), "a.zip"))

    killed = "Reading it took too long or too much memory; it is kept as it is."
    assert [(item.kind, item.problem) for item in found] == [
        ("text", None),
        ("file", killed),
        ("file", killed),
    ]


@given(st.binary(max_size=300), st.sampled_from(["a", "a.zip", "a.pdf", "a.txt", "a.mbox"]))
def test_whatever_the_bytes_something_comes_out_and_nothing_raises(raw: bytes, name: str):
    for start in (b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"%PDF-", b"From x\n"):
        if start + raw:
            assert items(start + raw, name)
