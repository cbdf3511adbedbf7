"""The file itself: a tar archive with one spelling only, written and read as a stream.

Any tar program unpacks it. Reading is stricter than tar: a header must be, byte for byte, the one that is written for
that name and size, so that links, folders, owners, extensions and bytes that nobody looks at do not exist. The last
member, `SHA256SUMS`, has the digest of every other.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

SUMS = "SHA256SUMS"
_BLOCK = 512
_PIECE = 1024 * 1024
_END = bytes(2 * _BLOCK)
# A payload has at most 10 MiB, a mail 50; written as JSON they grow.
_LINE_MAX = 512 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)?(\.[a-z]+)?")


class BundleUnfit(Exception):
    """The file is no bundle, damaged, or more than this version knows; nothing of it was taken in."""


class ArchiveWriter:
    """Writes members one after the other, then their digests."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: list[str] = []

    def add(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a member.

        Raises:
            BundleUnfit: The pieces have another size.
        """
        digest, written = hashlib.sha256(), 0
        self._file.write(_header(name, size))
        for piece in pieces:
            digest.update(piece)
            written += len(piece)
            self._file.write(piece)
        if written != size:
            raise BundleUnfit(f"{name} has {written} bytes, not {size}: it changed while it was read")
        self._file.write(bytes(-size % _BLOCK))
        self._sums.append(_sum(digest.hexdigest(), name))

    def finish(self) -> None:
        """Write the digests and the archive's end."""
        sums = "".join(self._sums).encode()
        self.add(SUMS, len(sums), (sums,))
        self._file.write(_END)


class Member:
    """One member, to be read once, in order."""

    def __init__(self, name: str, size: int, file: BinaryIO) -> None:
        self.name = name
        self.size = size
        self._file = file
        self._left = size
        self._digest = hashlib.sha256()

    def pieces(self) -> Iterator[bytes]:
        """The content, or what is left of it."""
        while self._left:
            piece = self._file.read(min(_PIECE, self._left))
            if not piece:
                raise BundleUnfit(f"it ends in the middle of {self.name}")
            self._left -= len(piece)
            self._digest.update(piece)
            yield piece

    def content(self) -> bytes:
        """All of it.

        Raises:
            BundleUnfit: It is larger than anything that is read at once.
        """
        if self.size > _LINE_MAX:
            raise BundleUnfit(f"{self.name} is too large")
        return b"".join(self.pieces())

    def lines(self) -> Iterator[bytes]:
        """Its lines; each ends with a line feed."""
        rest = bytearray()
        for piece in self.pieces():
            rest += piece
            *lines, rest = rest.split(b"\n")
            yield from (bytes(line) + b"\n" for line in lines)
            if len(rest) > _LINE_MAX:
                raise BundleUnfit(f"{self.name} has a line that is too long")
        if rest:
            raise BundleUnfit(f"{self.name} does not end with a line feed")

    def close(self) -> str:
        """Read past it; returns its digest."""
        for _ in self.pieces():
            pass
        if any(_exactly(self._file, -self.size % _BLOCK)):
            raise BundleUnfit(f"there is something behind {self.name}")
        return self._digest.hexdigest()


def members(file: BinaryIO) -> Iterator[Member]:
    """The members in order, `SHA256SUMS` excepted: it is compared with what was read.

    Raises:
        BundleUnfit: It is no such archive, cut off, or not what its digests say.
    """
    sums: list[str] = []
    while True:
        name, size = _read_header(file)
        member = Member(name, size, file)
        if name == SUMS:
            if member.content() != "".join(sums).encode():
                raise BundleUnfit("a member is not what SHA256SUMS says")
            member.close()
            break
        yield member
        sums.append(_sum(member.close(), name))
    if file.read(len(_END) + 1) != _END:
        raise BundleUnfit("it does not end where it should")


def _read_header(file: BinaryIO) -> tuple[str, int]:
    block = _exactly(file, _BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise BundleUnfit("it is no bundle, or damaged") from error
    if not _NAME.fullmatch(info.name) or _header(info.name, info.size) != block:
        raise BundleUnfit("a member's header is not one of a bundle")
    return info.name, info.size


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _exactly(file: BinaryIO, size: int) -> bytes:
    block = file.read(size)
    if len(block) != size:
        raise BundleUnfit("it is cut off")
    return block


def _sum(digest: str, name: str) -> str:
    # The form that `sha256sum --check` reads.
    return f"{digest}  {name}\n"
