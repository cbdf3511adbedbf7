import hashlib
import re
import tracemalloc
from collections.abc import Iterator
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.reading.mailbox import Parsed, Piece, read_mailbox, sniff, split

SAMPLE = files("casekeeper.reading").joinpath("sample.mbox").read_bytes()
ENVELOPE = b"From 1786900000000000000@xxx Mon Jan 22 15:05:00 +0000 2024\n"
LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"", b"\r", b"From ", b"From x", b">From y", b">>From ", b"Subject: x", b">", b"From"]
        ),
        st.binary(max_size=8),
    ),
    max_size=8,
)
MESSAGES = st.lists(LINES.map(lambda lines: b"".join(line + b"\n" for line in lines)), min_size=1, max_size=6)


def mboxrd(messages: list[bytes]) -> bytes:
    return b"".join(ENVELOPE + re.sub(rb"(?m)^(>*From )", rb">\1", message) + b"\n" for message in messages)


def in_chunks(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def read(raw: bytes, filename: str = "file") -> list[Parsed]:
    return list(read_mailbox([raw], filename))


@given(MESSAGES, st.integers(1, 64))
def test_a_mailbox_gives_back_its_messages_however_it_is_chunked(messages: list[bytes], size: int):
    assert list(split(in_chunks(mboxrd(messages), size), is_mbox=True)) == messages


@given(st.binary(max_size=200), st.integers(1, 20))
def test_chunking_never_changes_what_comes_out(raw: bytes, size: int):
    raw = raw.replace(b"\x00", b"\n").replace(b"\x01", b"\n\nFrom ")

    assert list(split(in_chunks(raw, size), is_mbox=True)) == list(split([raw], is_mbox=True))


def test_a_mailbox_with_windows_line_ends_is_split():
    raw = b"From a\r\nSubject: 1\r\n\r\nx\r\n\r\nFrom b\r\nSubject: 2\r\n\r\ny\r\n\r\n"

    assert list(split([raw], is_mbox=True)) == [b"Subject: 1\r\n\r\nx\r\n", b"Subject: 2\r\n\r\ny\r\n"]


def test_from_within_a_paragraph_splits_nothing():
    raw = ENVELOPE + b"Subject: 1\n\nIt is a gift.\nFrom me to you.\n\n"

    assert len(list(split([raw], is_mbox=True))) == 1


def test_bytes_before_the_first_separator_are_a_message_of_their_own():
    assert list(split([b"noise\n\n" + mboxrd([b"Subject: 1\n"])], is_mbox=True)) == [
        b"noise\n",
        b"Subject: 1\n",
    ]


def test_a_message_is_out_before_the_next_chunk_is_asked_for():
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(1, 4):
            asked.append(number)
            yield mboxrd([b"Subject: %d\n" % number])

    messages = split(chunks(), is_mbox=True)

    assert next(messages) == b"Subject: 1\n"
    assert asked == [1, 2]


@given(MESSAGES, st.integers(1, 64), st.integers(70, 100))
def test_messages_above_the_limit_come_in_pieces_and_lose_nothing(
    messages: list[bytes], size: int, limit: int
):
    joined = [b""]
    for one in split(in_chunks(mboxrd(messages), size), is_mbox=True, message_max=limit):
        joined[-1] += one.raw if isinstance(one, Piece) else one
        assert not isinstance(one, Piece) or len(one.raw) <= limit
        if not isinstance(one, Piece) or one.is_last:
            joined.append(b"")

    assert joined == [*messages, b""]


@pytest.mark.parametrize("filename", ["large.mbox", "large.eml"])
def test_of_a_large_message_the_first_piece_is_read(filename: str):
    large = b"Subject: Large\n\n>From me\n" + b"x" * 5_000
    raw = mboxrd([large]) if filename == "large.mbox" else large

    found = list(read_mailbox(in_chunks(raw, 100), filename, message_max=2_000))

    assert b"".join(piece.raw for piece in found).rstrip(b"\n") == large
    assert [piece.mail.subject if piece.mail else None for piece in found][:2] == ["Large", None]
    assert {piece.problem for piece in found} == {
        f"Piece {number} of a message that is too large to be read whole."
        for number in range(1, len(found) + 1)
    }


def test_memory_holds_one_message_of_a_long_mailbox():
    one = mboxrd([b"Subject: x\n\n" + b"y" * 10_000 + b"\n"])
    tracemalloc.start()

    for _ in split((one for _ in range(2_000)), is_mbox=True):
        pass

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.parametrize(
    ("head", "filename", "kind"),
    [
        (SAMPLE, "holiday.jpg", "mbox"),
        (b"\xef\xbb\xbf\n" + SAMPLE, "x", "mbox"),
        (b"Subject: x\nFrom: a@b\n\nhi", "mails.mbox", "eml"),
        (b"From : a@b\nSubject: x\n\nhi", "x", "eml"),
        (b"noise\n\nFrom x\nSubject: y\n", "All mail.mbox", "mbox"),
        (b"noise\n\nFrom x\nSubject: y\n", "notes.txt", "unknown"),
        (b"From the desk of Mira\nDear Nora,\n", "letter.txt", "unknown"),
        (b"\x89PNG\r\n\x1a\n\x00", "mails.mbox", "unknown"),
        (b"Dear diary", "diary.eml", "unknown"),
        (b"", "x.mbox", "unknown"),
    ],
)
def test_the_content_tells_the_format_and_the_name_only_helps(head: bytes, filename: str, kind: str):
    assert sniff(head, filename) == kind


def test_an_empty_file_has_no_messages():
    assert list(read_mailbox([], "x.mbox")) == []
    assert list(read_mailbox([b"", b""], "x.mbox")) == []


def test_a_binary_file_is_kept_whole_with_the_reason():
    raw = b"\x89PNG\r\n\x1a\n\x00\n\nFrom x\nSubject: y\n\n"

    assert read(raw, "mails.mbox") == [
        Parsed(raw, hashlib.sha256(raw).hexdigest(), None, "It is neither a mail nor a mailbox.")
    ]


def test_a_truncated_mailbox_ends_with_what_there_is_of_its_last_message():
    whole = mboxrd([b"Subject: 1\n\nOne.\n", b"Subject: 2\n\nTwo, and mo"])

    found = read(whole.rstrip(b"\n"))

    assert [one.raw for one in found] == [b"Subject: 1\n\nOne.\n", b"Subject: 2\n\nTwo, and mo"]
    assert [one.mail.text for one in found if one.mail] == ["One.", "Two, and mo"]


@given(st.integers(0, len(SAMPLE)))
def test_a_mailbox_cut_anywhere_loses_no_message_before_the_cut(length: int):
    whole = read(SAMPLE)

    found = read(SAMPLE[:length], "sample.mbox")

    assert found[:-1] == whole[: max(0, len(found) - 1)]


def test_what_cannot_be_parsed_stands_among_the_mails_with_its_reason():
    found = read(mboxrd([b"Subject: 1\n", b"", b"no header here\n", b"Subject: 4\n"]))

    assert [one.problem for one in found] == [None, "It is empty.", "It has no mail header.", None]
    assert [one.raw for one in found] == [b"Subject: 1\n", b"", b"no header here\n", b"Subject: 4\n"]


def test_a_single_mail_keeps_its_bytes():
    raw = b"Subject: x\n\n>From me\n\nFrom you\n\n"

    (found,) = read(raw, "x.eml")

    assert found.raw == raw
    assert found.sha256 == hashlib.sha256(raw).hexdigest()
    assert found.mail is not None


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_any_file_is_read_without_an_error(chunks: list[bytes]):
    for one in read_mailbox(chunks, "x.mbox"):
        assert (one.mail is None) == (one.problem is not None)


def test_the_sample_mailbox_is_read_whole():
    mails = [one.mail for one in read(SAMPLE) if one.mail]

    assert len(mails) == len(read(SAMPLE)) == 41
    assert [mail.problems for mail in mails if mail.problems] == [
        ("The date “Sometime in October, 25:61 o'clock” cannot be read.",)
    ]
    assert all(mail.thread_id and mail.labels and mail.message_id and mail.text for mail in mails)


def test_the_sample_holds_three_tax_documents_of_2024():
    mails = [one.mail for one in read(SAMPLE) if one.mail]

    found = [
        mail.attachments[0]
        for mail in mails
        if "tax" in f"{mail.subject} {mail.text}".lower() and mail.sent_at and mail.sent_at.year == 2024
    ]

    assert found == ["tax-assessment-2024-05-14.pdf", "wage-statement-2024.pdf", "donation-receipt-2024.pdf"]


def test_the_sample_names_only_reserved_domains():
    domains = {domain.decode() for domain in re.findall(rb"[\w.-]+@([\w.-]+\w)", SAMPLE)} - {"xxx"}

    assert {domain for domain in domains if not re.search(r"(^|\.)example\.(com|net|org)$", domain)} == set()
