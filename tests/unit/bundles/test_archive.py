"""A bundle has one spelling: whatever is changed, cut off or added anywhere in it is found, and nothing else is read."""

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casekeeper.bundles.archive import SUMS, ArchiveWriter, BundleUnfit, Member, members


def archive(*contents: tuple[str, bytes]) -> bytes:
    """An archive of these members."""
    writer = ArchiveWriter(file := io.BytesIO())
    for name, content in contents:
        writer.add(name, len(content), (content,))
    writer.finish()
    return file.getvalue()


def read(content: bytes) -> list[tuple[str, bytes]]:
    """All members."""
    return [(member.name, member.content()) for member in members(io.BytesIO(content))]


CONTENTS = (("bundle.json", b"{}"), ("records/ts_1.jsonl", b"a\nb\n" * 300), ("empty.json", b""))
WHOLE = archive(*CONTENTS)

unhurried = settings(deadline=None, max_examples=300)


def test_what_was_written_is_read_and_the_same_contents_are_the_same_bytes() -> None:
    assert read(WHOLE) == list(CONTENTS)
    assert archive(*CONTENTS) == WHOLE


def test_any_tar_program_reads_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as opened:
        assert opened.getnames() == [name for name, _ in CONTENTS] + [SUMS]
        file = opened.extractfile("records/ts_1.jsonl")
        assert file is not None
        assert file.read() == CONTENTS[1][1]


@unhurried
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_wherever_it_is(place: int, change: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] ^= change
    with pytest.raises(BundleUnfit):
        read(bytes(changed))


@unhurried
@given(st.integers(0, len(WHOLE) - 1))
def test_it_is_refused_wherever_it_is_cut_off(length: int) -> None:
    with pytest.raises(BundleUnfit):
        read(WHOLE[:length])


@given(st.binary(min_size=1, max_size=2000))
def test_nothing_may_follow(more: bytes) -> None:
    with pytest.raises(BundleUnfit):
        read(WHOLE + more)


@given(st.binary(max_size=3000))
def test_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(BundleUnfit):
        read(content)


def _member(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    info = tarfile.TarInfo("bundle.json")
    info.mode = 0o600
    change(info)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "header",
    [
        _member(lambda info: setattr(info, "name", "../../etc/passwd")),
        _member(lambda info: setattr(info, "name", "/etc/passwd")),
        _member(lambda info: setattr(info, "name", "a/b/c.json")),
        _member(lambda info: setattr(info, "name", "..")),
        _member(lambda info: setattr(info, "name", "x" * 300)),
        _member(lambda info: setattr(info, "type", tarfile.SYMTYPE)),
        _member(lambda info: setattr(info, "type", tarfile.DIRTYPE)),
        _member(lambda info: setattr(info, "type", tarfile.CHRTYPE)),
        _member(lambda info: setattr(info, "linkname", "/etc/passwd")),
        _member(lambda info: setattr(info, "mtime", 1)),
        _member(lambda info: setattr(info, "uname", "root")),
        _member(lambda info: setattr(info, "size", 8)),
        _member(lambda info: setattr(info, "size", 2**62)),
        tarfile.TarInfo("bundle.json").tobuf(tarfile.USTAR_FORMAT),
        tarfile.TarInfo("ü.json").tobuf(tarfile.PAX_FORMAT),
    ],
    ids=lambda header: repr(bytes(header[:12])),
)
def test_ways_out_links_and_members_larger_than_the_file_are_refused(header: bytes) -> None:
    with pytest.raises(BundleUnfit):
        read(header + WHOLE[1024:])


def test_a_size_that_tar_writes_in_another_way_is_read() -> None:
    """Over 8 GiB the size is a binary number; nothing that large is read at once."""
    file = io.BytesIO()
    with pytest.raises(BundleUnfit, match="not 9000000000"):
        ArchiveWriter(file).add("large.raw", 9_000_000_000, (b"less",))
    file.seek(0)
    member = next(members(file))
    assert (member.name, member.size) == ("large.raw", 9_000_000_000)
    with pytest.raises(BundleUnfit, match="too large"):
        member.content()


def test_lines_end_with_a_line_feed() -> None:
    def lines(content: bytes) -> list[bytes]:
        return list(Member("x", len(content), io.BytesIO(content)).lines())

    assert lines(b"a\n\nb\n") == [b"a\n", b"\n", b"b\n"]
    assert lines(b"x" * 3_000_000 + b"\n") == [b"x" * 3_000_000 + b"\n"]
    with pytest.raises(BundleUnfit, match="does not end with a line feed"):
        lines(b"a\nb")
