"""The text of a file, by its kind. Runs in a process of its own with limits: these formats are programs in disguise."""

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Final

from casekeeper.reading.clean import TEXT_MAX_CHARS, UNSAFE, line_of, text_of
from casekeeper.reading.markup import text_of_markup

_TEXT_MAX_BYTES: Final = 8 * TEXT_MAX_CHARS
_PAGES_MAX: Final = 5_000
_META_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE
)
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(slots=True)
class Extracted:
    """What a file says. `unreadable` is why there is no text; `problems` is what was left out of it."""

    text: str = ""
    unreadable: str | None = None
    problems: list[str] = field(default_factory=list[str])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


def extract(file: IO[bytes], kind: str) -> Extracted:
    """Text and problems; never raises, whatever the bytes."""
    found = Extracted()
    reader = _READERS.get(kind)
    if reader is None:
        if kind != "image":
            found.unreadable = "It is of a kind whose text cannot be read."
        return found
    file.seek(0)
    try:
        found.text = UNSAFE.sub("\ufffd", reader(file, found))[:TEXT_MAX_CHARS]
    except Exception as error:  # a stranger's bytes in a library: no list of what it raises is complete
        if found.unreadable is None:
            said = line_of(str(error))[:200] or type(error).__name__
            found.unreadable = f"It is damaged: {said}." if not isinstance(error, MemoryError) else _TOO_BIG
    return found


_TOO_BIG: Final = "Reading it takes more memory than one document may use."


def _plain(file: IO[bytes], found: Extracted) -> str:
    raw = file.read(_TEXT_MAX_BYTES + 1)
    text = _decoded(raw[:_TEXT_MAX_BYTES], None)
    if len(raw) > _TEXT_MAX_BYTES or len(text) > TEXT_MAX_CHARS:
        found.problems.append(f"Its text is longer than {TEXT_MAX_CHARS:,} characters; the rest is left out.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _html(file: IO[bytes], found: Extracted) -> str:
    raw = file.read(_TEXT_MAX_BYTES)
    declared = _META_CHARSET.search(raw[:4096])
    return text_of_markup(_decoded(raw, declared[1].decode() if declared else None), found.problems)


def _decoded(raw: bytes, charset: str | None) -> str:
    for bom, name in _BOMS:
        if raw.startswith(bom):
            return raw.decode(name, "replace")
    # A character that the limit cut in half would make all of it look like another charset.
    whole = raw[: raw.rfind(b"\n") + 1 or len(raw)] if len(raw) == _TEXT_MAX_BYTES else raw
    return text_of(whole, charset)[0]


def _pdf(file: IO[bytes], found: Extracted) -> str:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            found.unreadable = "It is encrypted; a password is needed."
        raise
    texts: list[str] = []
    left = TEXT_MAX_CHARS
    try:
        pages = len(document)
        found.metadata["pages"] = pages
        for number in range(min(pages, _PAGES_MAX)):
            page = document[number]
            textpage = page.get_textpage()
            text = str(textpage.get_text_range()).replace("\r\n", "\n").replace("\ufffe", "")
            textpage.close()
            page.close()
            texts.append(text)
            left -= len(text)
            if left < 0:
                break
        if left < 0 or pages > _PAGES_MAX:
            found.problems.append("It is too long to be read whole; the rest of its text is left out.")
    finally:
        document.close()
    # A form feed between pages, as text tools write it: readers can tell the pages apart.
    text = "\f".join(texts)
    if pages and not text.strip("\f \n"):
        found.problems.append("Its pages hold no text; they may be scans.")
    return text


def _docx(file: IO[bytes], found: Extracted) -> str:
    from casekeeper.reading.office import text_of_docx

    return text_of_docx(file, found.problems)


def _xlsx(file: IO[bytes], found: Extracted) -> str:
    from casekeeper.reading.office import text_of_xlsx

    return text_of_xlsx(file, found.problems)


_READERS: Final[dict[str, Callable[[IO[bytes], Extracted], str]]] = {
    "text": _plain,
    "markdown": _plain,
    "csv": _plain,
    "html": _html,
    "pdf": _pdf,
    "docx": _docx,
    "xlsx": _xlsx,
}
