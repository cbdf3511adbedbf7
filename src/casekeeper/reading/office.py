"""The text of Word and Excel files: zips of XML (ECMA-376), read as streams within limits.

Cells show what a reader of the sheet sees; a formula stands before its value. Nothing is ever computed here.
"""

import re
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import IO, Final
from xml.etree.ElementTree import Element, iterparse

from casekeeper.reading.clean import TEXT_MAX_CHARS

_PART_MAX: Final = 256 * 1024 * 1024
_STRINGS_MAX: Final = 16 * 1024 * 1024
# Number formats of Excel itself that show a date or a time (ECMA-376, part 1, §18.8.30).
_DATE_FORMATS: Final = {*range(14, 23), *range(45, 48)}
_DATE_CODE = re.compile(r"[ymdhs]", re.IGNORECASE)
_NO_CODE = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')


class TooLong(ValueError):
    """A part of the file expands to more than is read."""


def kind_of_package(file: IO[bytes]) -> str | None:
    """`docx` or `xlsx`, if the zip is one."""
    try:
        with zipfile.ZipFile(file) as package:
            names = set(package.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    if "[Content_Types].xml" not in names:
        return None
    return "docx" if "word/document.xml" in names else "xlsx" if "xl/workbook.xml" in names else None


def text_of_docx(file: IO[bytes], problems: list[str]) -> str:
    """Body, headers, footers, notes and comments, a line per paragraph."""
    pieces = _Pieces(problems)
    with zipfile.ZipFile(file) as package:
        wanted = re.compile(r"word/(?:document|header\d*|footer\d*|footnotes|endnotes|comments)\.xml")
        names = sorted(
            (n for n in package.namelist() if wanted.fullmatch(n)),
            key=lambda n: (n != "word/document.xml", n),
        )
        for name in names:
            for element in _elements(package, name):
                match _local(element):
                    case "t":
                        pieces.add(element.text or "")
                    case "tab":
                        pieces.add("\t")
                    case "p" | "br" | "cr":
                        pieces.add("\n")
                    case _:
                        pass
                if pieces.is_full:
                    return pieces.text
    return pieces.text


def text_of_xlsx(file: IO[bytes], problems: list[str]) -> str:
    """Every sheet: its name, then a line per row with its cells, tabs between."""
    pieces = _Pieces(problems)
    with zipfile.ZipFile(file) as package:
        names = set(package.namelist())
        strings = list(_strings(package)) if "xl/sharedStrings.xml" in names else []
        dates = _date_styles(package) if "xl/styles.xml" in names else set[int]()
        base = _base(package)
        for title, path in _sheets(package, names):
            pieces.add(f"{title}\n")
            for row in _rows(package, path, strings, dates, base):
                pieces.add("\t".join(row) + "\n")
                if pieces.is_full:
                    return pieces.text
            pieces.add("\n")
    return pieces.text


class _Pieces:
    """A text that grows up to the limit."""

    def __init__(self, problems: list[str]) -> None:
        self._pieces: list[str] = []
        self._left = TEXT_MAX_CHARS
        self._problems = problems

    def add(self, piece: str) -> None:
        if len(piece) > self._left and not self.is_full:
            self._problems.append(
                f"Its text is longer than {TEXT_MAX_CHARS:,} characters; the rest is left out."
            )
        self._pieces.append(piece[: max(self._left, 0)])
        self._left -= len(piece)

    @property
    def is_full(self) -> bool:
        return self._left < 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)


class _Limited:
    """A part that ends with an error where it is larger than it may be."""

    def __init__(self, part: IO[bytes]) -> None:
        self._part = part
        self._left = _PART_MAX

    def read(self, size: int = -1) -> bytes:
        data = self._part.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TooLong("a part of it is larger than is read")
        return data


def _elements(package: zipfile.ZipFile, name: str) -> Iterator[Element]:
    """Elements as they end; each is emptied behind the caller, so that memory stays flat."""
    with package.open(name) as part:
        depth = 0
        for event, element in iterparse(_Limited(part), events=("start", "end")):  # noqa: S314 - in a limited process
            depth += 1 if event == "start" else -1
            if event == "end":
                yield element
                # A row needs its cells; whatever ends outside of one is not needed again.
                if depth <= 1 or _local(element) in ("row", "p", "si"):
                    element.clear()


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _strings(package: zipfile.ZipFile) -> Iterator[str]:
    left = _STRINGS_MAX
    for element in _elements(package, "xl/sharedStrings.xml"):
        if _local(element) == "si":
            # Phonetic hints (rPh) are not part of what a cell shows.
            hints = {id(t) for r in element if _local(r) == "rPh" for t in r.iter()}
            text = "".join(t.text or "" for t in element.iter() if _local(t) == "t" and id(t) not in hints)
            left -= len(text)
            yield text if left > 0 else ""


def _date_styles(package: zipfile.ZipFile) -> set[int]:
    """The cell styles that show a number as a date."""
    custom: dict[int, str] = {}
    styles: list[int] = []
    for element in _elements(package, "xl/styles.xml"):
        if _local(element) == "numFmt":
            custom[int(element.get("numFmtId", 0))] = element.get("formatCode", "")
        elif _local(element) == "cellXfs":
            styles = [int(xf.get("numFmtId", 0)) for xf in element]
    shows = {n for n, code in custom.items() if _DATE_CODE.search(_NO_CODE.sub("", code))} | _DATE_FORMATS
    return {number for number, style in enumerate(styles) if style in shows}


def _base(package: zipfile.ZipFile) -> datetime:
    """The day before day 1. Excel counts a 29 February 1900 that never was, hence the 30th; old Macs start in 1904."""
    for element in _elements(package, "xl/workbook.xml"):
        if _local(element) == "workbookPr" and element.get("date1904") in ("1", "true"):
            return datetime(1904, 1, 1)  # noqa: DTZ001 - a sheet knows no zone
    return datetime(1899, 12, 30)  # noqa: DTZ001 - likewise


def _sheets(package: zipfile.ZipFile, names: set[str]) -> Iterator[tuple[str, str]]:
    targets: dict[str, str] = {}
    if "xl/_rels/workbook.xml.rels" in names:
        for element in _elements(package, "xl/_rels/workbook.xml.rels"):
            targets[element.get("Id", "")] = element.get("Target", "").removeprefix("/xl/")
    for element in _elements(package, "xl/workbook.xml"):
        if _local(element) == "sheet":
            ids = [value for name, value in element.attrib.items() if name.endswith("}id")]
            path = f"xl/{targets.get(ids[0] if ids else '', '')}"
            if path in names:
                yield element.get("name", ""), path


def _rows(
    package: zipfile.ZipFile, path: str, strings: list[str], dates: set[int], base: datetime
) -> Iterator[list[str]]:
    for element in _elements(package, path):
        if _local(element) == "row":
            row = [_cell(cell, strings, dates, base) for cell in element if _local(cell) == "c"]
            if any(row):
                yield row


def _cell(cell: Element, strings: list[str], dates: set[int], base: datetime) -> str:
    parts = {_local(part): part for part in cell}
    value = (parts["v"].text or "") if "v" in parts else ""
    match cell.get("t"):
        case "s":
            value = strings[int(value)] if value.isdecimal() and int(value) < len(strings) else ""
        case "inlineStr":
            value = "".join(t.text or "" for t in cell.iter() if _local(t) == "t")
        case "b":
            value = "TRUE" if value == "1" else "FALSE"
        case None | "n":
            style = cell.get("s", "")
            value = _date(value, base) if style.isdecimal() and int(style) in dates else value
        case _:
            pass
    formula = (parts["f"].text or "") if "f" in parts else ""
    shown = " ".join(value.split())
    return f"={formula} → {shown}" if formula else shown


def _date(value: str, base: datetime) -> str:
    try:
        instant = base + timedelta(seconds=round(float(value) * 86400))
    except (ValueError, OverflowError):
        return value
    return instant.isoformat(sep=" ").removesuffix(" 00:00:00")
