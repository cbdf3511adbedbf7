"""What is in an archive, entry by entry, within limits. Nothing is ever written under a name that an archive gives.

Zip, tar, and single files packed with gzip, bzip2 or xz; a tar may be packed with any of these. Every entry is copied
into a file of its own that has no name on the disk and is gone when it is closed.
"""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Final, cast

from casekeeper.reading.clean import line_of

ENTRIES_MAX: Final = 200_000
DEPTH_MAX: Final = 4
# Below this an entry may expand as much as it likes: the figures of spreadsheets and logs pack well.
_RATIO_FROM: Final = 64 * 1024 * 1024
_RATIO_MAX: Final = 200
NO_FILE: Final = "It is a link or a device, not a file."
_IN_MEMORY: Final = 4 * 1024 * 1024
_CHUNK: Final = 256 * 1024
_PATH_MAX: Final = 500

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
    LookupError,
    struct.error,
    MemoryError,
    OverflowError,
)
"""What the libraries raise for damaged archives."""


class TooMuch(Exception):
    """A limit is reached; nothing more of this upload is expanded. Its text is the reason, one sentence."""


@dataclass(slots=True)
class Budget:
    """What may still be expanded of one upload, over all its archives."""

    entries: int = ENTRIES_MAX
    total: int = 16 * 1024**3
    entry: int = 2 * 1024**3

    def count(self) -> None:
        """One entry more.

        Raises:
            TooMuch: There are too many.
        """
        self.entries -= 1
        if self.entries < 0:
            raise TooMuch(f"It has more than {ENTRIES_MAX:,} entries; the rest is left out.")

    def spend(self, size: int) -> None:
        """Bytes more.

        Raises:
            TooMuch: There are too many.
        """
        self.total -= size
        if self.total < 0:
            raise TooMuch("It expands to more than an upload may; the rest is left out.")


@dataclass(slots=True)
class Entry:
    """One entry: its bytes, or why there are none. `note` is something odd about one that was expanded."""

    path: str
    file: IO[bytes] | None
    problem: str | None = None
    note: str | None = None


def entries(file: IO[bytes], kind: str, name: str, budget: Budget) -> Iterator[Entry]:
    """The entries of an archive, in its order; the file of each is closed when the next one is asked for.

    Raises:
        TooMuch: The budget is spent.
        Exception: One of `BROKEN`: the archive cannot be read any further.
    """
    match kind:
        case "zip":
            found = _zip(file, budget)
        case "tar":
            # It holds no more than the file itself does, so only what is copied out counts.
            found = _tar(_Metered(file, None), budget)
        case _:
            found = _packed(file, kind, name, budget)
    with closing(found):
        for entry in found:
            try:
                budget.count()
                yield entry
            finally:
                if entry.file is not None:
                    entry.file.close()


def path_of(name: str) -> tuple[str, str | None]:
    """A path as it may be shown, without what leads out of the archive, and a note where there was such a thing."""
    parts = [line_of(part) for part in name.replace("\\", "/").split("/")]
    kept = [part for part in parts if part not in ("", ".", "..")]
    leads_out = ".." in parts or name.startswith(("/", "\\"))
    note = "Its path leads out of the archive; that is ignored." if leads_out else None
    return "/".join(kept)[-_PATH_MAX:] or "unnamed", note


def _zip(file: IO[bytes], budget: Budget) -> Generator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path, note = path_of(info.filename)
            mode = info.external_attr >> 16
            if info.filename.endswith("/"):
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield Entry(path, None, NO_FILE)
            elif info.flag_bits & 1:
                yield Entry(path, None, "It is encrypted.")
            else:
                packed = max(info.compress_size, 1)
                yield _expanded(path, note, lambda info=info: archive.open(info), budget, packed)


def _tar(file: "_Metered", budget: Budget) -> Generator[Entry]:
    # As a stream: nothing is sought, so what was packed is unpacked once.
    with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r|") as archive:
        for member in archive:
            path, note = path_of(member.name)
            # A list of all members would grow with the archive.
            archive.members = []  # type: ignore[attr-defined]
            if member.isdir():
                continue
            if not member.isreg():
                yield Entry(path, None, NO_FILE)
            elif member.size > budget.entry:
                yield Entry(path, None, "It is larger than a document may be.")
            else:
                yield _expanded(
                    path, note, lambda m=member: cast("IO[bytes]", archive.extractfile(m)), budget
                )
        if file.tail.strip(b"\x00"):
            # Zeros end a tar; the library takes a header that is cut off for an end, too.
            raise tarfile.ReadError("it ends in the middle")


def _packed(file: IO[bytes], kind: str, name: str, budget: Budget) -> Generator[Entry]:
    open_ = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind]
    with cast("IO[bytes]", open_(file, "rb")) as unpacked:
        head = unpacked.read(512)
        unpacked.seek(0)
        if head[257:262] == b"ustar":
            # All that is unpacked counts, and with it what is copied out.
            copying = Budget(total=budget.total, entry=budget.entry)
            yield from _tar(_Metered(unpacked, budget), copying)
            return
        path, _ = path_of(name)
        stem, _, ending = path.rpartition(".")
        path = f"{stem}.tar" if ending.lower() == "tgz" else stem or path
        size = file.seek(0, 2)
        file.seek(0)
        yield _expanded(path, None, lambda: cast("IO[bytes]", open_(file, "rb")), budget, max(size, 1))


class _Metered:
    """Counts what is unpacked, headers and skipped entries included, and remembers how it ended."""

    def __init__(self, file: IO[bytes], budget: Budget | None) -> None:
        self._file = file
        self._budget = budget
        self.tail = b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if self._budget is not None:
            self._budget.spend(len(data))
        self.tail = (self.tail + data)[-512:]
        return data


def _expanded(
    path: str, note: str | None, open_: Callable[[], IO[bytes]], budget: Budget, packed: int | None = None
) -> Entry:
    """An entry copied out, or the reason why it could not be."""
    copy: IO[bytes] = cast("IO[bytes]", SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the entry is closed by `entries`
    size = 0
    try:
        with open_() as source:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                budget.spend(len(chunk))
                problem = _excess(size, packed, budget)
                if problem:
                    copy.close()
                    return Entry(path, None, problem)
                copy.write(chunk)
    except TooMuch:
        copy.close()
        raise
    except BROKEN as error:
        copy.close()
        return Entry(path, None, f"It cannot be expanded: {line_of(str(error)) or type(error).__name__}.")
    copy.seek(0)
    return Entry(path, copy, note=note)


def _excess(size: int, packed: int | None, budget: Budget) -> str | None:
    if size > budget.entry:
        return "It is larger than a document may be."
    if packed is not None and size > _RATIO_FROM and size > _RATIO_MAX * packed:
        return f"It expands to more than {_RATIO_MAX} times its size."
    return None
