"""One mail, read from its bytes into what a person would see of it. Pure: no files, no network, no clock.

Two readers: a fast one for well-formed mails, and a careful one for everything else, which never gives up and
whose work is bounded by the caps below. Their libraries are loaded with the first mail, not with this module.
"""

import binascii
import codecs
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from email.message import Message

    from fast_mail_parser import PyAddress

T = TypeVar("T")

# Real headers stay under 40 KiB even with long DKIM and ARC chains.
HEADER_MAX_BYTES: Final = 64 * 1024
PARTS_MAX: Final = 500
DEPTH_MAX: Final = 30
RECIPIENTS_MAX: Final = 2_000
REFERENCES_MAX: Final = 200
TEXT_MAX_CHARS: Final = 1024 * 1024
# RFC 5322 §2.1.1 allows no longer line; a longer subject or name is noise.
LINE_MAX_CHARS: Final = 998
# Without its tags; mail programs show no more than some 100 KiB.
_MARKUP_MAX_CHARS: Final = 2 * TEXT_MAX_CHARS
_MARKUP_PIECE_CHARS: Final = 64 * 1024
_TOO_MANY_PARTS: Final = f"It has more than {PARTS_MAX} parts; the rest is left out."
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2107, 1, 1, tzinfo=UTC)

_ENVELOPE = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:>?From (?![ \t]*:)[^\n]*(?:\n|\Z))*")
_HEADER_END = re.compile(rb"(?:\A|\n)\r?\n")
_KNOWN_FIELD = re.compile(
    rb"^(?:from|sender|to|cc|bcc|reply-to|subject|date|message-id|in-reply-to|references|received|return-path"
    rb"|delivered-to|mime-version|status|(?:resent|content|list|dkim|arc|x)-[!-9;-~]+)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,75})\?([bq])\?([^?]*)\?=(?:\s+(?==\?))?", re.IGNORECASE)
_ADDRESS_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|\([^()]*\)?|<[^>]*>?|[^"(<,;:]+|.', re.DOTALL)
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,250})>")
_LIST_POST = re.compile(r"<mailto:([^<>?\s]{1,250})", re.IGNORECASE)
_LABEL = re.compile(r'(?:"[^"]*"?|[^",])+')
_UNSAFE = re.compile(r"[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_WORDS = re.compile(r"\w+")
# A quoted value that holds a "<" is left to the HTML parser; so this never reads a character twice.
_TAG = re.compile(r"""<(/?[a-z][a-z0-9:-]*+)(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>""", re.IGNORECASE)
_BLOCK = re.compile(
    r"address|article|blockquote|body|br|caption|center|d[dlt]|div|footer|form|h[1-6r]|header|li|main|[ou]l|option"
    r"|p|pre|section|table|t(?:body|foot|head|r)"
)
# These answer to `bytes.decode` without being character sets of mails; some of them need quadratic time.
_NOT_CHARSETS = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}


class UnreadableMail(ValueError):
    """The bytes are no mail at all: empty, or without any mail header. Its text is the reason, one sentence."""


@dataclass(frozen=True, slots=True)
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
        return _line(next(iter(self.headers.get(name, ())), ""))


def parse_mail(raw: bytes) -> Mail:
    """The mail in `raw` (RFC 5322, MIME); a leading mbox `From ` line is skipped.

    Whatever is damaged is read as far as possible and named in `Mail.problems`. An attached mail is an attachment:
    its text is not part of this one's. Time and memory are linear in the size of `raw`.

    Raises:
        UnreadableMail: The bytes are no mail. Nothing else is raised, whatever the bytes.
    """
    raw, header_end = _opened(raw)
    header = raw[: header_end.start() + 1 if header_end else len(raw)]
    if not raw.strip():
        raise UnreadableMail("It is empty.")
    if not _KNOWN_FIELD.search(header[:HEADER_MAX_BYTES]):
        raise UnreadableMail("It is binary data." if b"\x00" in raw else "It has no mail header.")
    cut = len(header) > HEADER_MAX_BYTES
    if cut:
        header = header[: header.rfind(b"\n", 0, HEADER_MAX_BYTES) + 1 or HEADER_MAX_BYTES]
        raw = header + b"\n" + (raw[header_end.end() :] if header_end else b"")
    reading = _tolerant(lambda: _read_fast(raw), None) if _suits_fast_reader(raw) else None
    reading = reading or _read_carefully(raw)
    if cut:
        reading.problems.insert(0, "The header is longer than 64 KiB; the rest of it is left out.")
    return _finish(reading)


def has_mail_header(raw: bytes) -> bool:
    """Whether a mail header opens `raw`, directly or behind an mbox `From ` line. One known field is enough."""
    raw, header_end = _opened(raw)
    return bool(
        _KNOWN_FIELD.search(raw[: min(HEADER_MAX_BYTES, header_end.start() if header_end else len(raw))])
    )


def _opened(raw: bytes) -> tuple[bytes, re.Match[bytes] | None]:
    """The bytes without what stands before the header, and where the header ends."""
    before = _ENVELOPE.match(raw)
    raw = raw[before.end() :] if before else raw
    return raw, _HEADER_END.search(raw)


def _tolerant(read: Callable[[], T], default: T) -> T:
    """What `read` returns, or the default when it fails.

    For library calls on bytes that strangers wrote: no list of exceptions is complete there (ValueError, LookupError
    and OverflowError were all seen), and one mail must never stop an import. A panic of native code arrives outside
    `Exception`, under a class that cannot be imported.
    """
    try:
        return read()
    except BaseException as surprise:
        if isinstance(surprise, Exception) or type(surprise).__name__ == "PanicException":
            return default
        raise


def _finish(reading: _Reading) -> Mail:
    """The reading as a mail: cleaned, capped, and with everything left out named."""
    problems = reading.problems
    date = reading.first("date")
    sent_at = _tolerant(lambda: _instant(date[:100]), None)
    if date and sent_at is None:
        problems.append(f"The date “{date[:100]}” cannot be read.")
    if len(reading.to) + len(reading.cc) + len(reading.bcc) > RECIPIENTS_MAX:
        problems.append(f"It has more than {RECIPIENTS_MAX:,} recipients; the rest is left out.")
    if len(reading.plain) + len(reading.html) + len(reading.attachments) > PARTS_MAX:
        problems.append(_TOO_MANY_PARTS)
    everybody = [_line(one) for one in (*reading.to, *reading.cc, *reading.bcc)[:RECIPIENTS_MAX]]
    recipients, cc, bcc = len(reading.to), len(reading.to) + len(reading.cc), RECIPIENTS_MAX
    named = [one for name in ("references", "in-reply-to") for one in reading.headers.get(name, ())]
    references = dict.fromkeys(
        one for value in named for one in _MESSAGE_ID.findall(value[:HEADER_MAX_BYTES])
    )
    lists = [*_MESSAGE_ID.findall(reading.first("list-id")), *_LIST_POST.findall(reading.first("list-post"))]
    text = _body(reading.plain[:PARTS_MAX], reading.html[:PARTS_MAX], problems)
    return Mail(
        subject=reading.first("subject"),
        sender=_line(next(iter(reading.senders), "")),
        recipients=tuple(everybody[:recipients]),
        cc=tuple(everybody[recipients:cc]),
        bcc=tuple(everybody[cc:bcc]),
        sent_at=sent_at,
        message_id=reading.first("message-id").strip("<> ") or None,
        references=tuple(_line(one) for one in references)[-REFERENCES_MAX:],
        thread_id=reading.first("x-gm-thrid") or None,
        lists=tuple(dict.fromkeys(one.lower() for one in lists)),
        labels=_labels(reading.headers.get("x-gmail-labels", [])),
        text=text,
        attachments=tuple(_line(name)[:255] for name in reading.attachments[:PARTS_MAX]),
        problems=tuple(dict.fromkeys(_line(problem) for problem in problems)),
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
    top = _headers(raw)[0]
    headers: dict[str, list[str]] = {}
    for name, value in top.raw_items():
        headers.setdefault(name.lower(), []).append(str(value))
    reading = _Reading(
        headers={name: [_decoded(value) for value in values] for name, values in headers.items()},
        # Addresses are told apart before their names are decoded: a decoded name may hold a comma.
        senders=_addresses(headers.get("from", [])[:1]),
        to=_addresses(headers.get("to", [])),
        cc=_addresses(headers.get("cc", [])),
        bcc=_addresses(headers.get("bcc", [])),
    )
    waiting = [(raw, 0)]
    leaves = containers = 0
    while waiting and max(leaves, containers) < PARTS_MAX:
        part, depth = waiting.pop()
        head, body = _headers(part)
        boundary = _tolerant(head.get_boundary, None)
        if head.get_content_maintype() != "multipart" or not boundary:
            leaves += 1
            _read_leaf(head, body, reading)
        elif depth < DEPTH_MAX:
            containers += 1
            children, complete = _split(body, boundary)
            waiting.extend((child, depth + 1) for child in reversed(children))
            if not complete:
                reading.problems.append(_TOO_MANY_PARTS)
        else:
            reading.problems.append(f"Parts nested deeper than {DEPTH_MAX} are left out.")
    if waiting:
        reading.problems.append(_TOO_MANY_PARTS)
    return reading


def _headers(part: bytes) -> "tuple[Message, bytes]":
    """A part's header fields, read by the standard library's lenient policy, and the bytes behind them."""
    from email.parser import HeaderParser
    from email.policy import compat32

    end = _HEADER_END.search(part)
    head = part[: end.start() + 1 if end else len(part)][:HEADER_MAX_BYTES]
    message = HeaderParser(policy=compat32).parsestr(_text(head, None)[0])
    for name in ("content-type", "content-disposition"):
        # The library needs quadratic time for parameters; real ones are far shorter.
        if len(str(message.get(name, ""))) > 1024:
            message.replace_header(name, str(message[name])[:1024])
    return message, part[end.end() :] if end else b""


def _split(body: bytes, boundary: str) -> tuple[list[bytes], bool]:
    """The parts between the delimiter lines, at most PARTS_MAX, and whether these are all."""
    line = re.escape(boundary.encode("utf-8", "surrogatepass").rstrip())
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + line + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    parts: list[bytes] = []
    start: int | None = None
    for found in delimiter.finditer(body):
        if start is not None:
            if len(parts) == PARTS_MAX:
                return parts, False
            parts.append(body[start : found.start()].removeprefix(b"\r").removeprefix(b"\n"))
        start = found.end()
        if found[1]:
            return parts, True
    # A mail cut off in the middle has no closing line; its last part reaches to the end.
    return (parts if start is None else [*parts, body[start:].removeprefix(b"\r").removeprefix(b"\n")]), True


def _read_leaf(head: "Message", body: bytes, reading: _Reading) -> None:
    """Add a part that holds no parts: its text, or its name when it is an attachment."""
    kind = head.get_content_type()
    if (
        kind not in ("text/plain", "text/html")
        or _tolerant(head.get_content_disposition, None) == "attachment"
    ):
        name = _tolerant(head.get_filename, None)
        reading.attachments.append(_decoded(name) if name else f"unnamed ({kind})")
        return
    # Enough for the text's cap in UTF-8 and its relatives; base64 adds a third.
    cut = len(body) > 6 * TEXT_MAX_CHARS
    body = body[: 6 * TEXT_MAX_CHARS]
    encoding = str(head.get("content-transfer-encoding", "")).strip().lower()
    if encoding == "base64":
        known = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
        if re.search(rb"[^A-Za-z0-9+/=\s]", body):
            reading.problems.append("A part is no valid base64; it is read as far as possible.")
        body = binascii.a2b_base64(known[: len(known) - (len(known) % 4 == 1)] + b"==")
    elif encoding == "quoted-printable":
        body = binascii.a2b_qp(body)
    if cut:
        # At a line's end, so that no character is cut in half.
        body = body[: body.rfind(b"\n") + 1 or len(body)]
        reading.problems.append("A text part is longer than 6 MiB; the rest is left out.")
    charset = _tolerant(head.get_content_charset, None)
    text, fitting = _text(body, charset)
    if charset and fitting != charset:
        reading.problems.append(f"A part does not fit its charset {charset[:40]}; it is read as {fitting}.")
    (reading.html if kind == "text/html" else reading.plain).append(text)


def _text(raw: bytes, charset: str | None) -> tuple[str, str]:
    """The text and the charset that fitted: the declared one, else UTF-8, else Windows-1252, which always fits."""
    for name in (charset, "utf-8"):
        if name and (text := _tolerant(partial(_strictly, raw, name), None)) is not None:
            return text, name
    return raw.decode("cp1252", "replace"), "windows-1252"


def _strictly(raw: bytes, charset: str) -> str | None:
    return None if codecs.lookup(charset[:40]).name in _NOT_CHARSETS else raw.decode(charset[:40])


def _decoded(value: str) -> str:
    """A header value with its encoded words (RFC 2047) read; what cannot be read stays as it is."""

    def word(match: re.Match[str]) -> str:
        charset, encoding, content = match.groups()
        raw = content.encode("ascii", "replace")
        raw = binascii.a2b_base64(raw + b"==") if encoding in "bB" else binascii.a2b_qp(raw, header=True)
        # The language suffix is RFC 2231 §5.
        return _text(raw, charset.partition("*")[0])[0]

    return _ENCODED_WORD.sub(lambda match: _tolerant(partial(word, match), match[0]), value)


def _addresses(values: Iterable[str]) -> list[str]:
    """The addresses of header values as displayed, group names (RFC 5322 §3.4) left out. Never fails."""
    found: list[str] = []
    for value in values:
        name, address = "", ""
        for part in (*_ADDRESS_TOKEN.findall(value), ";"):
            if part == ";" or (part == "," and (address or "@" in name)):
                if name.strip() or address:
                    found.append(_shown(_decoded(name), address))
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
    return tuple(label for part in parts if (label := _line(part).strip('" ')))


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


def _line(value: str) -> str:
    """One clean line: no control characters, none that turn the reading direction, no double spaces."""
    value = _UNSAFE.sub("\ufffd", value[: 4 * LINE_MAX_CHARS])
    return " ".join(_CONTROL.sub(" ", value).split())[:LINE_MAX_CHARS]


def _body(plain: list[str], html: list[str], problems: list[str]) -> str:
    """The text parts as one text; markup joins it where it says something that the plain parts do not."""
    texts = [tidy for part in plain if (tidy := part.replace("\r\n", "\n").replace("\r", "\n").strip())]
    known = set(_WORDS.findall("\n\n".join(texts)[:TEXT_MAX_CHARS].casefold()))
    for markup in html:
        # Tags go first: pictures written into them may be megabytes, and the parser needs quadratic time for deep
        # nesting. It is left with scripts, comments, entities and whatever is malformed.
        bare = _tolerant(partial(_TAG.sub, _gap, " ".join(markup.split())), "")
        if len(bare) > _MARKUP_MAX_CHARS:
            problems.append("Its HTML is longer than 2 MiB; the rest is left out.")
        converted = _tolerant(partial(_without_markup, bare[:_MARKUP_MAX_CHARS]), "")
        words = set(_WORDS.findall(converted.casefold()))
        # Programs send a stub such as "see the HTML part" as plain text; mailing lists add a plain footer to HTML.
        if len(words - known) > len(words) // 2:
            texts.append(converted)
    text = _UNSAFE.sub("\ufffd", "\n\n".join(texts))
    if len(text) > TEXT_MAX_CHARS:
        problems.append(f"Its text is longer than {TEXT_MAX_CHARS:,} characters; the rest is left out.")
    return text[:TEXT_MAX_CHARS]


def _without_markup(bare: str) -> str:
    """The text that a reader of the HTML sees, one line per block."""
    from selectolax.lexbor import LexborHTMLParser

    texts: list[str] = []
    start = 0
    while start < len(bare):
        # In pieces: what is quadratic in the parser stays small.
        end = start + _MARKUP_PIECE_CHARS
        if end < len(bare) and (tag := bare.rfind("<", start + 1, end)) > 0:
            end = tag
        tree = LexborHTMLParser(bare[start:end])
        tree.strip_tags(["script", "style", "title"])
        texts.append(tree.text())
        start = end
    lines = (" ".join(line.split()) for line in "".join(texts).splitlines())
    return "\n".join(line for line in lines if line)


def _gap(tag: re.Match[str]) -> str:
    """What stands in the text for a tag; those whose content is not text stay, without their attributes."""
    name = tag[1].lower().removeprefix("/")
    if name in ("script", "style", "title"):
        return f"<{tag[1]}>"
    return "\n" if _BLOCK.fullmatch(name) else " " if name in ("td", "th") else ""
