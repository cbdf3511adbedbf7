"""One mail, read from its bytes into what a person would see of it. Pure: no files, no network, no clock.

Two readers: a fast one for well-formed mails, and a careful one for everything else, which never gives up and
whose work is bounded by the caps below. Their libraries are loaded with the first mail, not with this module.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from casekeeper.reading.clean import TEXT_MAX_CHARS, line_of, text_of, tolerant, without_unsafe
from casekeeper.reading.mail_parts import (
    DEPTH_MAX,
    HEADER_MAX_BYTES,
    PARTS_MAX,
    TOO_MANY_PARTS,
    decoded,
    decoded_header,
    header_end,
    headers_of,
    is_text,
    leaves,
    name_of,
)
from casekeeper.reading.markup import text_of_markup
from casekeeper.values import value

if TYPE_CHECKING:
    from email.message import Message

    from fast_mail_parser import PyAddress

RECIPIENTS_MAX: Final = 2_000
REFERENCES_MAX: Final = 200
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2107, 1, 1, tzinfo=UTC)

_ENVELOPE = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:>?From (?![ \t]*:)[^\n]*(?:\n|\Z))*")
_KNOWN_FIELD = re.compile(
    rb"^(?:from|sender|to|cc|bcc|reply-to|subject|date|message-id|in-reply-to|references|received|return-path"
    rb"|delivered-to|mime-version|status|(?:resent|content|list|dkim|arc|x)-[!-9;-~]+)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ADDRESS_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|\([^()]*\)?|<[^>]*>?|[^"(<,;:]+|.', re.DOTALL)
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,250})>")
_LIST_POST = re.compile(r"<mailto:([^<>?\s]{1,250})", re.IGNORECASE)
_LABEL = re.compile(r'(?:"[^"]*"?|[^",])+')
_WORDS = re.compile(r"\w+")


class UnreadableMail(ValueError):
    """The bytes are no mail at all: empty, or without any mail header. Its text is the reason, one sentence."""


@value
class Mail:
    """What a mail says. Every text is valid Unicode without NUL and without lone surrogates.

    Attributes:
        subject: One line, at most 998 characters; empty when there is none.
        sender: The first author as displayed, `Name <a@b>` or `a@b`; empty when there is none.
        recipients: Those in `To`, in the mail's order, in the same form; with `cc` at most 2,000.
        cc: Those in `Cc`.
        sent_at: The date that the sender wrote, in UTC; None when it is missing, unreadable or outside 1900 to 2106.
        bcc: Those in `Bcc`, which only the sender's own copy names.
        message_id: Without its angle brackets.
        references: Message ids in `References` and `In-Reply-To` (RFC 5322 §3.6.4), at most 200.
        lists: The mailing list that sent it: its id (RFC 2919) and address (RFC 2369).
        thread_id: Gmail's number of the conversation (`X-GM-THRID` in Google Takeout).
        labels: Gmail's labels (`X-Gmail-Labels`), in the mail's order.
        text: The body, at most 1 MiB of characters. Markup is turned into plain text and is left out where it
            only repeats the plain part.
        attachments: File names in the mail's order; a nameless part is called `unnamed (its type)`.
        problems: What could not be read or was left out, a sentence each; empty for a sound mail.
    """

    subject: str
    sender: str
    recipients: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    sent_at: datetime | None
    message_id: str | None
    references: tuple[str, ...]
    thread_id: str | None
    lists: tuple[str, ...]
    labels: tuple[str, ...]
    text: str
    attachments: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Reading:
    """What either reader found, not yet cleaned and capped. Header names are in lower case, values decoded."""

    headers: dict[str, list[str]]
    senders: list[str]
    to: list[str]
    cc: list[str]
    bcc: list[str]
    plain: list[str] = field(default_factory=list[str])
    html: list[str] = field(default_factory=list[str])
    attachments: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])

    def first(self, name: str) -> str:
        return line_of(next(iter(self.headers.get(name, ())), ""))


def parse_mail(raw: bytes) -> Mail:
    """The mail in `raw` (RFC 5322, MIME); a leading mbox `From ` line is skipped.

    Whatever is damaged is read as far as possible and named in `Mail.problems`. An attached mail is an attachment:
    its text is not part of this one's. Time and memory are linear in the size of `raw`.

    Raises:
        UnreadableMail: The bytes are no mail. Nothing else is raised, whatever the bytes.
    """
    raw, end = opened(raw)
    header = raw[: end[0] if end else len(raw)]
    if not raw.strip():
        raise UnreadableMail("It is empty.")
    if not _KNOWN_FIELD.search(header[:HEADER_MAX_BYTES]):
        raise UnreadableMail("It is binary data." if b"\x00" in raw else "It has no mail header.")
    cut = len(header) > HEADER_MAX_BYTES
    if cut:
        header = header[: header.rfind(b"\n", 0, HEADER_MAX_BYTES) + 1 or HEADER_MAX_BYTES]
        raw = header + b"\n" + (raw[end[1] :] if end else b"")
    reading = tolerant(lambda: _read_fast(raw), None) if _suits_fast_reader(raw) else None
    reading = reading or _read_carefully(raw)
    if cut:
        reading.problems.insert(0, "The header is longer than 64 KiB; the rest of it is left out.")
    return _finish(reading)


def has_mail_header(raw: bytes) -> bool:
    """Whether a mail header opens `raw`, directly or behind an mbox `From ` line. One known field is enough."""
    raw, end = opened(raw)
    return bool(_KNOWN_FIELD.search(raw[: min(HEADER_MAX_BYTES, end[0] if end else len(raw))]))


def opened(raw: bytes) -> tuple[bytes, tuple[int, int] | None]:
    """The bytes without what stands before the header, and where the header ends."""
    before = _ENVELOPE.match(raw)
    raw = raw[before.end() :] if before else raw
    return raw, header_end(raw)


def _finish(reading: _Reading) -> Mail:
    """The reading as a mail: cleaned, capped, and with everything left out named."""
    problems = reading.problems
    date = reading.first("date")
    sent_at = tolerant(lambda: _instant(date[:100]), None)
    if date and sent_at is None:
        problems.append(f"The date “{date[:100]}” cannot be read.")
    if len(reading.to) + len(reading.cc) + len(reading.bcc) > RECIPIENTS_MAX:
        problems.append(f"It has more than {RECIPIENTS_MAX:,} recipients; the rest is left out.")
    if len(reading.plain) + len(reading.html) + len(reading.attachments) > PARTS_MAX:
        problems.append(TOO_MANY_PARTS)
    everybody = [line_of(one) for one in (*reading.to, *reading.cc, *reading.bcc)[:RECIPIENTS_MAX]]
    recipients, cc, bcc = len(reading.to), len(reading.to) + len(reading.cc), RECIPIENTS_MAX
    named = [one for name in ("references", "in-reply-to") for one in reading.headers.get(name, ())]
    references = dict.fromkeys(
        one for value in named for one in _MESSAGE_ID.findall(value[:HEADER_MAX_BYTES])
    )
    lists = [*_MESSAGE_ID.findall(reading.first("list-id")), *_LIST_POST.findall(reading.first("list-post"))]
    text = _body(reading.plain[:PARTS_MAX], reading.html[:PARTS_MAX], problems)
    return Mail(
        subject=reading.first("subject"),
        sender=line_of(next(iter(reading.senders), "")),
        recipients=tuple(everybody[:recipients]),
        cc=tuple(everybody[recipients:cc]),
        bcc=tuple(everybody[cc:bcc]),
        sent_at=sent_at,
        message_id=reading.first("message-id").strip("<> ") or None,
        references=tuple(line_of(one) for one in references)[-REFERENCES_MAX:],
        thread_id=reading.first("x-gm-thrid") or None,
        lists=tuple(dict.fromkeys(one.lower() for one in lists)),
        labels=_labels(reading.headers.get("x-gmail-labels", [])),
        text=text,
        attachments=tuple(line_of(name)[:255] for name in reading.attachments[:PARTS_MAX]),
        problems=tuple(dict.fromkeys(line_of(problem) for problem in problems)),
    )


def _suits_fast_reader(raw: bytes) -> bool:
    """Whether the fast reader can neither be led beyond the caps nor guess a charset that it was not told.

    A nested part needs a boundary parameter and every part a delimiter line, so counting both is a safe bound.
    """
    lowered = raw.lower()
    if lowered.count(b"boundary") > DEPTH_MAX or raw.count(b"\n--") > 10 * PARTS_MAX:
        return False
    # It needs quadratic time for what looks like encoded words in the header of a part: hours for 10 MiB.
    if raw.count(b"=?") > 10 * PARTS_MAX:
        return False
    return raw.isascii() or (b"charset" in lowered and b"us-ascii" not in lowered)


def _read_fast(raw: bytes) -> _Reading | None:
    """The mail by the fast reader; None where the careful one knows better."""
    from fast_mail_parser import parse_email

    # Lazy: attachments are never decoded, so a damaged one does no harm.
    mail = parse_email(raw, mode="lazy")
    bodies = [*mail.text_plain, *mail.text_html]
    if any(warning.kind == "charset-fallback" for warning in mail.warnings) or "\ufffd" in "".join(bodies):
        return None
    headers: dict[str, list[str]] = {}
    for name, values in mail.headers.items():
        headers.setdefault(name.lower(), []).extend(values)

    def people(parsed: "list[PyAddress]", name: str) -> list[str]:
        parsed = parsed if all("@" in one.address for one in parsed) else []
        known = [_shown(one.display_name or "", one.address) for one in parsed]
        # The library reads the first header of a name only, and that one wholly or not at all.
        return known + _addresses(headers.get(name, [])[bool(known) :])

    return _Reading(
        headers=headers,
        senders=people([mail.from_] if mail.from_ else [], "from"),
        to=people(mail.to, "to"),
        cc=people(mail.cc, "cc"),
        bcc=_addresses(headers.get("bcc", [])),
        plain=mail.text_plain,
        html=mail.text_html,
        attachments=[one.filename or f"unnamed ({one.mimetype})" for one in mail.attachments],
    )


def _read_carefully(raw: bytes) -> _Reading:
    """The mail, however damaged: parts are cut out here (RFC 2046 §5.1.1), so depth and number stay bounded."""
    top = headers_of(raw)[0]
    headers: dict[str, list[str]] = {}
    for name, text in top.raw_items():
        headers.setdefault(name.lower(), []).append(str(text))
    reading = _Reading(
        headers={name: [decoded_header(value) for value in values] for name, values in headers.items()},
        # Addresses are told apart before their names are decoded: a decoded name may hold a comma.
        senders=_addresses(headers.get("from", [])[:1]),
        to=_addresses(headers.get("to", [])),
        cc=_addresses(headers.get("cc", [])),
        bcc=_addresses(headers.get("bcc", [])),
    )
    for head, body in leaves(raw, reading.problems):
        _read_leaf(head, body, reading)
    return reading


def _read_leaf(head: "Message", body: bytes, reading: _Reading) -> None:
    """Add a part that holds no parts: its text, or its name when it is an attachment."""
    kind = head.get_content_type()
    if not is_text(head):
        reading.attachments.append(name_of(head) or f"unnamed ({kind})")
        return
    # Enough for the text's cap in UTF-8 and its relatives; base64 adds a third.
    cut = len(body) > 6 * TEXT_MAX_CHARS
    body = decoded(head, body[: 6 * TEXT_MAX_CHARS], reading.problems)
    if cut:
        # At a line's end, so that no character is cut in half.
        body = body[: body.rfind(b"\n") + 1 or len(body)]
        reading.problems.append("A text part is longer than 6 MiB; the rest is left out.")
    charset = tolerant(head.get_content_charset, None)
    text, fitting = text_of(body, charset)
    if charset and fitting != charset:
        reading.problems.append(f"A part does not fit its charset {charset[:40]}; it is read as {fitting}.")
    (reading.html if kind == "text/html" else reading.plain).append(text)


def _addresses(values: Iterable[str]) -> list[str]:
    """The addresses of header values as displayed, group names (RFC 5322 §3.4) left out. Never fails."""
    found: list[str] = []
    for header in values:
        name, address = "", ""
        for part in (*_ADDRESS_TOKEN.findall(header), ";"):
            if part == ";" or (part == "," and (address or "@" in name)):
                if name.strip() or address:
                    found.append(_shown(decoded_header(name), address))
                name, address = "", ""
                if len(found) > RECIPIENTS_MAX:
                    return found
            elif part == ":" and "@" not in name:
                name = ""
            elif part[0] == "<":
                address = part.strip("<> ")
            else:
                # A comma that ends no address belongs to a name that lacks its quotes: `Beck, Nora <nora@b>`.
                name += re.sub(r"\\(.)", r"\1", part[1:].removesuffix('"')) if part[0] == '"' else part
    return found


def _shown(name: str, address: str) -> str:
    name, address = name.strip(" ,;"), address.strip(" ,;")
    return f"{name} <{address}>" if name and address and name != address else address or name


def _labels(values: list[str]) -> tuple[str, ...]:
    parts = _LABEL.findall(values[0]) if values else []
    return tuple(label for part in parts if (label := line_of(part).strip('" ')))


def _instant(date: str) -> datetime | None:
    """The instant that a date header names (RFC 5322 §3.3 and its obsolete forms)."""
    from email.utils import parsedate_tz

    if (parsed := parsedate_tz(date)) is None:
        return None
    year, month, day, hour, minute, second = parsed[:6]
    # A leap second is the one before it: datetime knows none.
    local = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    instant = local - timedelta(seconds=parsed[9] or 0)
    return instant if _EARLIEST <= instant < _LATEST else None


def _body(plain: list[str], html: list[str], problems: list[str]) -> str:
    """The text parts as one text; markup joins it where it says something that the plain parts do not."""
    texts = [tidy for part in plain if (tidy := part.replace("\r\n", "\n").replace("\r", "\n").strip())]
    known: set[str] = set()
    if html:
        known.update(_WORDS.findall("\n\n".join(texts)[:TEXT_MAX_CHARS].casefold()))
    for markup in html:
        converted = text_of_markup(markup, problems)
        # Programs send a stub such as "see the HTML part" as plain text; mailing lists add a plain footer to HTML.
        if _says_more(converted, known):
            texts.append(converted)
    text = without_unsafe("\n\n".join(texts))
    if len(text) > TEXT_MAX_CHARS:
        problems.append(f"Its text is longer than {TEXT_MAX_CHARS:,} characters; the rest is left out.")
    return text[:TEXT_MAX_CHARS]


def _says_more(text: str, known: set[str]) -> bool:
    """Whether more than half of its words are new."""
    if not known:
        return _WORDS.search(text) is not None
    words = set(_WORDS.findall(text.casefold()))
    return len(words - known) > len(words) // 2
