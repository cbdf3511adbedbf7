"""Files of many kinds, made by hand, so that a test says what is in them."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

MAIL = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: %b\r\nDate: Thu, 1 Jan 2026 10:00:00 +0000\r\n\r\nText of %b.\r\n"


def mail(subject: str) -> bytes:
    """A small mail."""
    return MAIL.replace(b"%b", subject.encode())


def mail_with(*attachments: tuple[str, str, bytes], subject: str = "With attachments") -> bytes:
    """A mail with attachments of (name, type, bytes)."""
    parts = [b"Content-Type: text/plain\r\n\r\nSee the attachment.\r\n"]
    for name, kind, data in attachments:
        head = (
            f'Content-Type: {kind}; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        )
        parts.append(head.encode() + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + data + b"\r\n")
    body = b"".join(b"--x\r\n" + part for part in parts) + b"--x--\r\n"
    head = f"From: a@example.com\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
    return head.encode() + b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n' + body


def zipped(files: Mapping[str, bytes], *, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: Mapping[str, bytes], mode: Any = "w", links: Mapping[str, str] | None = None) -> bytes:
    """A tar, with symbolic links, packed as `mode` says."""
    out = io.BytesIO()
    archive: tarfile.TarFile
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return out.getvalue()


def docx(*paragraphs: str) -> bytes:
    """A Word file."""
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = "".join(f"<w:p><w:r><w:t>{p}</w:t></w:r></w:p>" for p in paragraphs)
    document = f"<w:document {w}><w:body>{body}</w:body></w:document>"
    return zipped({"[Content_Types].xml": b"<Types/>", "word/document.xml": document.encode()})


def xlsx(rows: str, *, strings: str = "", date1904: bool = False) -> bytes:
    """An Excel file with one sheet named Costs, of rows as XML; style 1 is a date."""
    m = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    r = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    files = {
        "[Content_Types].xml": "<Types/>",
        "xl/workbook.xml": f'<workbook {m} {r}><workbookPr date1904="{int(date1904)}"/>'
        '<sheets><sheet name="Costs" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": '<Relationships xmlns="p"><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet {m}><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
        "xl/sharedStrings.xml": f"<sst {m}>{strings}</sst>",
        "xl/worksheets/sheet1.xml": f"<worksheet {m}><sheetData>{rows}</sheetData></worksheet>",
    }
    return zipped({name: text.encode() for name, text in files.items()})


def pdf(text: str, *, encrypted: bool = False) -> bytes:
    """A PDF of one page; an encrypted one asks for a password that nobody knows."""
    stream = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    trailer = b"/Root 1 0 R"
    if encrypted:
        secret = b"<" + b"5a" * 32 + b">"
        objects.append(b"<< /Filter /Standard /V 1 /R 2 /O %b /U %b /P -44 >>" % (secret, secret))
        trailer += b" /Encrypt 6 0 R /ID [<00> <00>]"
    out, places = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return out + b"xref\n0 %d\n0000000000 65535 f \n%btrailer << /Size %d %b >>\nstartxref\n%d\n%%%%EOF" % (
        size,
        table,
        size,
        trailer,
        len(out),
    )
