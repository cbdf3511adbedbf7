import subprocess
import sys
import sysconfig
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.reading.clean import TEXT_MAX_CHARS
from casekeeper.reading.mail import RECIPIENTS_MAX, Mail, UnreadableMail, has_mail_header, parse_mail
from casekeeper.reading.mail_parts import PARTS_MAX

CPYTHON_MAILS = Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"

PIECES_OF_MAILS = st.sampled_from(
    [
        b"\n", b"\r\n", b"\n\n", b" ", b":", b";", b"--a", b"--a--", b"=?utf-8?q?=C3=A9?=", b"=?x?b?!?=", b"\x00", b"\xff",
        b"From ", b"From: ", b"Subject: ", b"To: ", b"Cc: ", b"Date: ", b"Mon, 1 Jan 2024 10:00:00 +0100", b"a@b", b"<", b">",
        b'"', b"(", b")", b",", b"Content-Type: ", b"multipart/mixed; boundary=a", b"text/html", b"text/plain",
        b"; charset=", b"utf-16", b"utf-7", b"zlib", b"name*0*=x''%E9", b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable", b"=E9", b"w6k=", b"<p>", b"<script>", b"&#0;", b"X-Gmail-Labels: ",
    ]
)  # fmt: skip


def a_mail(*lines: str, body: str = "Hello.") -> bytes:
    return "\n".join(["Subject: Rent", *lines, "", body, ""]).encode()


def texts_of(mail: Mail) -> list[str]:
    several = (*mail.recipients, *mail.cc, *mail.labels, *mail.attachments, *mail.problems)
    return [mail.subject, mail.sender, mail.message_id or "", mail.thread_id or "", mail.text, *several]


def assert_is_sound(mail: Mail) -> None:
    everything = "".join(texts_of(mail))
    everything.encode()
    assert "\x00" not in everything
    assert mail.sent_at is None or mail.sent_at.tzinfo is UTC
    assert len(mail.text) <= TEXT_MAX_CHARS


def nested(depth: int) -> bytes:
    opened = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth))
    return f"Subject: Nested\n{opened}\nInnermost.\n".encode()


def test_a_mail_says_who_wrote_what_to_whom_and_when():
    raw = a_mail(
        'From: "Beck, Nora" <nora@example.com>',
        "To: Mira <mira@example.org>, tom@example.net",
        "Cc: =?iso-8859-1?q?J=F6rg=2C_Office?= <joerg@example.org>",
        "Date: Mon, 22 Jan 2024 16:05:00 +0100",
        "Bcc: quiet@example.net",
        "Message-ID: <1@example.com>",
        "References: <a@example.org> <b@example.org>",
        "In-Reply-To: <b@example.org> (yours of Monday)",
        "List-Id: Tenants <tenants.example.com>",
        "List-Post: <mailto:Tenants@example.com?subject=x>",
        "X-GM-THRID: 1786900000000000000",
        "X-Gmail-Labels: Inbox,=?UTF-8?Q?B=C3=BCro?=",
    )

    mail = parse_mail(raw)

    assert mail == Mail(
        subject="Rent",
        sender="Beck, Nora <nora@example.com>",
        recipients=("Mira <mira@example.org>", "tom@example.net"),
        cc=("Jörg, Office <joerg@example.org>",),
        bcc=("quiet@example.net",),
        sent_at=datetime(2024, 1, 22, 15, 5, tzinfo=UTC),
        message_id="1@example.com",
        references=("a@example.org", "b@example.org"),
        lists=("tenants.example.com", "tenants@example.com"),
        thread_id="1786900000000000000",
        labels=("Inbox", "Büro"),
        text="Hello.",
        attachments=(),
        problems=(),
    )


def test_both_readers_read_the_same():
    raw = a_mail(
        "From: =?utf-8?q?J=C3=B6rg=2C_Office?= <joerg@example.org>",
        "To: friends: a@example.org, b@example.org;, Beck, Nora <n@example.org>",
        'Content-Type: multipart/mixed; boundary="x"',
        body='--x\nContent-Type: text/plain; charset=utf-8\n\nOne\n--x\nContent-Type: text/html; charset=utf-8\n\n<p>Other</p>\n--x\nContent-Type: a/b; name="c.d"\n\n1\n--x--',
    )

    fast = parse_mail(raw)
    # So many boundaries are beyond what the fast reader is trusted with.
    careful = parse_mail(raw.replace(b"Subject:", b"X-Pad: " + b"boundary " * 40 + b"\nSubject:"))

    assert careful == fast
    assert (fast.text, fast.attachments) == ("One\n\nOther", ("c.d",))
    assert fast.recipients == ("a@example.org", "b@example.org", "Beck, Nora <n@example.org>")


def test_a_leading_mbox_line_is_not_part_of_the_mail():
    assert parse_mail(b"From x@y Mon Jan  1 00:00:00 2024\n>From x\nSubject: Rent\n\nHi").subject == "Rent"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "It is empty."),
        (b"\r\n \n", "It is empty."),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "It is binary data."),
        (b"Dear diary,\n\nit rained.", "It has no mail header."),
    ],
)
def test_what_is_no_mail_is_refused_with_the_reason(raw: bytes, reason: str):
    with pytest.raises(UnreadableMail, match=reason):
        parse_mail(raw)
    assert not has_mail_header(raw)


def test_a_mail_without_a_date_has_no_sent_at():
    mail = parse_mail(a_mail())

    assert mail.sent_at is None
    assert mail.problems == ()


@pytest.mark.parametrize(
    "date",
    ["Sometime in October", "Fri, 31 Dec 9999 23:59:00 -2300", "Fri, 1 Jan 99999999999999999999 00:00:00 +0000", "1 Jan 1800 0:0"],
)  # fmt: skip
def test_an_impossible_date_is_a_problem_and_no_date(date: str):
    mail = parse_mail(a_mail(f"Date: {date}"))

    assert mail.sent_at is None
    assert mail.problems == (f"The date “{date}” cannot be read.",)


@pytest.mark.parametrize("year", [1904, 2106])
def test_dates_far_away_are_believed(year: int):
    assert parse_mail(a_mail(f"Date: 1 Jan {year} 10:00:00 +0000")).sent_at == datetime(
        year, 1, 1, 10, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain; charset=utf-8", "Größe".encode()),
        ("text/plain; charset=iso-8859-1", b"Gr\xf6\xdfe"),
        ("text/plain", "Größe".encode()),
        ("text/plain", b"Gr\xf6\xdfe"),
    ],
)
def test_a_body_is_read_in_the_charset_that_fits(content_type: str, body: bytes):
    mail = parse_mail(f"Subject: Size\nContent-Type: {content_type}\n\n".encode() + body)

    assert (mail.text, mail.problems) == ("Größe", ())


@pytest.mark.parametrize("charset", ["us-ascii", "utf-8", "klingon", "zlib", "unicode_escape", "x" * 5000])
def test_a_charset_that_does_not_fit_is_a_problem_but_the_text_is_there(charset: str):
    mail = parse_mail(
        f"Subject: Size\nContent-Type: text/plain; charset={charset}\n\n".encode() + b"Gr\xf6\xdfe"
    )

    assert mail.text == "Größe"
    assert ["does not fit its charset" in problem for problem in mail.problems] == [True]


def test_damaged_base64_is_read_as_far_as_possible():
    mail = parse_mail(a_mail("Content-Transfer-Encoding: base64", body="SGVsbG8g!!!!d29ybGQ=???"))

    assert mail.text == "Hello world"
    assert mail.problems == ("A part is no valid base64; it is read as far as possible.",)


def test_markup_becomes_lines_of_text():
    html = "<style>p{}</style><script>x()</script><h1>Hi <b>th</b>ere</h1><p>caf&eacute; &lt;3<br>ok</p><!-- no -->"
    table = "<table><tr><td>Rent</td><td>780</td></tr></table>"

    mail = parse_mail(a_mail("Content-Type: text/html; charset=utf-8", body=html + table))

    assert mail.text == "Hi there\ncafé <3\nok\nRent 780"


ALTERNATIVES = "--x\nContent-Type: text/plain\n\n{}\n--x\nContent-Type: text/html\n\n<p>Rent rises to <b>905</b></p>\n--x--"


def test_markup_that_only_repeats_the_plain_text_is_left_out():
    raw = a_mail(
        "Content-Type: multipart/alternative; boundary=x", body=ALTERNATIVES.format("Rent rises to 905")
    )

    assert parse_mail(raw).text == "Rent rises to 905"


def test_markup_behind_a_stub_of_plain_text_is_read():
    raw = a_mail(
        "Content-Type: multipart/alternative; boundary=x", body=ALTERNATIVES.format("Use another program.")
    )

    assert parse_mail(raw).text == "Use another program.\n\nRent rises to 905"


def test_attachments_are_named():
    parts = [
        "Content-Type: application/pdf\nContent-Disposition: attachment; filename*=UTF-8''r%C3%A9.pdf\n\nx",
        'Content-Type: image/png; name="\u202egnp.exe"\n\nx',
        "Content-Type: message/rfc822\n\nSubject: Inner\n\nInner text",
    ]
    body = "".join(f"--x\n{part}\n" for part in parts) + "--x--"

    mail = parse_mail(a_mail("Content-Type: multipart/mixed; boundary=x", body=body))

    assert mail.attachments == ("ré.pdf", "gnp.exe", "unnamed (message/rfc822)")
    assert mail.text == ""


def test_a_mail_that_was_cut_off_keeps_what_is_there():
    body = "--x\nContent-Type: text/plain\n\nFirst\n--x\nContent-Type: text/plain\n\nSecond, unfin"

    assert (
        parse_mail(a_mail("Content-Type: multipart/mixed; boundary=x", body=body)).text
        == "First\n\nSecond, unfin"
    )


@pytest.mark.parametrize("depth", [31, 300, 3_000])
def test_parts_nested_too_deep_are_left_out_and_named(depth: int):
    mail = parse_mail(nested(depth))

    assert mail.text == ""
    assert mail.problems == ("Parts nested deeper than 30 are left out.",)


def test_parts_nested_within_the_limit_are_read():
    assert parse_mail(nested(30)).text == "Innermost."


@pytest.mark.parametrize("count", [PARTS_MAX + 1, 100_000])
def test_too_many_parts_are_cut_and_named(count: int):
    raw = a_mail("Content-Type: multipart/mixed; boundary=x", body="--x\n\nword\n" * count)

    mail = parse_mail(raw)

    assert mail.text.count("word") == PARTS_MAX
    assert mail.problems == ("It has more than 500 parts; the rest is left out.",)


def test_too_many_recipients_are_cut_and_named():
    people = ",".join(f"a{n}@b.c" for n in range(RECIPIENTS_MAX))

    mail = parse_mail(a_mail(f"To: {people}", f"Cc: {people}"))

    assert len(mail.recipients) + len(mail.cc) == RECIPIENTS_MAX
    assert mail.problems == ("It has more than 2,000 recipients; the rest is left out.",)


def test_a_long_header_is_cut_and_the_body_is_still_read():
    mail = parse_mail(a_mail(*[f"X-Noise: {'y' * 900}"] * 100))

    assert (mail.subject, mail.text) == ("Rent", "Hello.")
    assert mail.problems == ("The header is longer than 64 KiB; the rest of it is left out.",)


def test_a_long_text_is_cut_and_named():
    mail = parse_mail(a_mail(body="rent " * (TEXT_MAX_CHARS // 4)))

    assert len(mail.text) == TEXT_MAX_CHARS
    assert mail.problems == ("Its text is longer than 1,048,576 characters; the rest is left out.",)


# Quadratic time would be minutes: the limit only tells the two apart.
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "markup",
    ["<div>", "<b id=1><p>", "<a b='", "<!--", "<script ", "<y></x>", "&", "<", "<table><tr>"],
)
def test_hostile_markup_takes_no_long_time(markup: str):
    raw = a_mail("Content-Type: text/html", body=markup * (4_000_000 // len(markup)))
    assert_is_sound(parse_mail(raw))


# Quadratic time would be minutes: the limit only tells the two apart.
@pytest.mark.timeout(120)
def test_many_empty_containers_take_no_long_time():
    raw = nested(1) + b"".join(
        b"--b0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n" for _ in range(50_000)
    )
    mail = parse_mail(raw)

    assert mail.problems == ("It has more than 500 parts; the rest is left out.",)


@pytest.mark.parametrize("noise", ["=?", ";a=b", "\n a", '"'])
def test_a_hostile_header_of_a_part_takes_no_long_time(noise: str):
    part = f"--x\nContent-Type: a/b{noise * 1_000_000}\n\nx\n--x--"
    mail = parse_mail(a_mail("Content-Type: multipart/mixed; boundary=x", body=part))

    assert len(mail.attachments) == 1


@pytest.mark.parametrize("noise", ["(", "<", '"', ":", "=?", "=?utf-8?q?", "\\", ",", "()", ";a="])
def test_hostile_headers_are_survived(noise: str):
    value = noise * (20_000 // len(noise))

    assert_is_sound(parse_mail(a_mail(f"To: {value}", f"From: {value}", f"Content-Type: text/plain{value}")))


def test_nul_and_lone_surrogates_never_leave():
    raw = a_mail("From: =?utf-8?q?a=00b?= <a@b>", "X-Gmail-Labels: a\x00b", body="a\x00b").replace(
        b"Rent", b"\xed\xa0\x80\x00"
    )

    assert_is_sound(parse_mail(raw))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_mail_or_unreadable(raw: bytes):
    with suppress(UnreadableMail):
        assert_is_sound(parse_mail(raw))


@given(st.lists(st.one_of(PIECES_OF_MAILS, st.binary(max_size=6)), max_size=60).map(b"".join))
def test_anything_behind_a_subject_is_a_mail(rest: bytes):
    assert_is_sound(parse_mail(b"Subject: x\n" + rest))


def test_the_mails_that_python_tests_itself_with_are_read():
    paths = sorted(CPYTHON_MAILS.glob("msg_*.txt"))
    if not paths:
        pytest.skip("this Python comes without its own tests")

    for path in paths:
        raw = path.read_bytes()
        try:
            assert_is_sound(parse_mail(raw))
        except UnreadableMail:
            assert not has_mail_header(raw)


def test_the_parsers_are_loaded_with_the_first_mail_only():
    code = "import sys, casekeeper.reading.mailbox; print(*{'selectolax', 'fast_mail_parser', 'email'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
