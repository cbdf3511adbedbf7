"""What kind of file some bytes are. The content decides; a name that says otherwise is reported."""

import re
from typing import Final

from casekeeper.reading.mailbox import sniff

# Enough for the magic numbers, and for the header of a mail.
HEAD_BYTES: Final = 64 * 1024

_MAGIC: Final = (
    (b"%PDF-", "pdf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_TEXT_NAMES: Final = {
    "txt": "text",
    "log": "text",
    "md": "markdown",
    "markdown": "markdown",
    "csv": "csv",
    "tsv": "csv",
    "htm": "html",
    "html": "html",
}
_NAMES: Final = {
    **_TEXT_NAMES,
    "eml": "mail",
    "mbox": "mailbox",
    "pdf": "pdf",
    "docx": "docx",
    "xlsx": "xlsx",
    "zip": "zip",
    "tar": "tar",
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "tif", "tiff", "bmp"), "image"),
}
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_FIELDS = re.compile(
    rb"^(?:from|to|subject|date|message-id|received|return-path|mime-version)[ \t]*:", re.I | re.M
)
_HEADER = re.compile(rb"(?:[!-9;-~]+[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*)+\r?\n")
# Control characters that no text has; tabs, line ends, form feeds and escapes are left out.
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")


def kind_of(head: bytes, name: str) -> str:
    """The kind of a file that starts with `head`; `file` where it is none that is known."""
    if not head:
        return "file"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    named = _TEXT_NAMES.get(_extension(name))
    if named is None or _is_surely_mail(head):
        match sniff(head, name):
            case "mbox":
                return "mailbox"
            case "eml":
                return "mail"
            case "unknown":
                pass
    if _NO_TEXT.search(head) and not head.startswith(_BOMS):
        return "file"
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "html"
    return named or "text"


def lie_of(kind: str, name: str) -> str | None:
    """What to say where the name of a file promises another kind."""
    promised = _NAMES.get(_extension(name))
    if promised in (None, kind) or {promised, kind} <= {"text", "markdown", "csv", "mail", "mailbox"}:
        return None
    return f"It is named .{_extension(name)}, but its content is of the kind {kind}."


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _is_surely_mail(head: bytes) -> bool:
    """Stricter where the name says text: prose may begin with a word and a colon, too."""
    if head.startswith(b"From "):
        return True
    header = _HEADER.match(head)
    return bool(header) and len({found.lower() for found in _FIELDS.findall(header[0])}) >= 2
