"""The parts of a mail (MIME), cut out with bounds on their depth and number, and decoded as far as possible."""

import binascii
import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from casekeeper.reading.clean import text_of, tolerant

if TYPE_CHECKING:
    from email.message import Message

# Real headers stay under 40 KiB even with long DKIM and ARC chains.
HEADER_MAX_BYTES: Final = 64 * 1024
PARTS_MAX: Final = 500
DEPTH_MAX: Final = 30
TOO_MANY_PARTS: Final = f"It has more than {PARTS_MAX} parts; the rest is left out."

_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,75})\?([bq])\?([^?]*)\?=(?:\s+(?==\?))?", re.IGNORECASE)


def header_end(raw: bytes) -> tuple[int, int] | None:
    """Where the empty line behind the header begins and ends; None where there is none."""
    for empty in (b"\n", b"\r\n"):
        if raw.startswith(empty):
            return 0, len(empty)
    bare = raw.find(b"\n\n")
    # Searched by itself, which is ten times as fast as by an expression; the first of both counts.
    full = raw.find(b"\n\r\n", 0, bare + 2 if bare >= 0 else len(raw))
    if full >= 0:
        return full + 1, full + 3
    return (bare + 1, bare + 2) if bare >= 0 else None


def leaves(raw: bytes, problems: list[str]) -> "Iterator[tuple[Message, bytes]]":
    """The parts that hold no parts, in the mail's order: header and body of each, the body as it was sent."""
    waiting = [(raw, 0)]
    found = containers = 0
    while waiting and max(found, containers) < PARTS_MAX:
        part, depth = waiting.pop()
        head, body = headers_of(part)
        boundary = tolerant(head.get_boundary, None)
        if head.get_content_maintype() != "multipart" or not boundary:
            found += 1
            yield head, body
        elif depth < DEPTH_MAX:
            containers += 1
            children, complete = _children(body, boundary)
            waiting.extend((child, depth + 1) for child in reversed(children))
            if not complete:
                problems.append(TOO_MANY_PARTS)
        else:
            problems.append(f"Parts nested deeper than {DEPTH_MAX} are left out.")
    if waiting:
        problems.append(TOO_MANY_PARTS)


def headers_of(part: bytes) -> "tuple[Message, bytes]":
    """A part's header fields, read by the standard library's lenient policy, and the bytes behind them."""
    from email.parser import HeaderParser
    from email.policy import compat32

    end = header_end(part)
    head = part[: end[0] if end else len(part)][:HEADER_MAX_BYTES]
    message = HeaderParser(policy=compat32).parsestr(text_of(head, None)[0])
    for name in ("content-type", "content-disposition"):
        # The library needs quadratic time for parameters; real ones are far shorter.
        if len(str(message.get(name, ""))) > 1024:
            message.replace_header(name, str(message[name])[:1024])
    return message, part[end[1] :] if end else b""


def _children(body: bytes, boundary: str) -> tuple[list[bytes], bool]:
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


def is_text(head: "Message") -> bool:
    """Whether a part is text of the mail itself, not something attached."""
    return (
        head.get_content_type() in ("text/plain", "text/html")
        and tolerant(head.get_content_disposition, None) != "attachment"
    )


def name_of(head: "Message") -> str | None:
    """The file name of a part, as its sender wrote it."""
    name = tolerant(head.get_filename, None)
    return decoded_header(name) if name else None


def decoded(head: "Message", body: bytes, problems: list[str]) -> bytes:
    """The bytes of a part without the encoding for their way (RFC 2045 §6)."""
    encoding = str(head.get("content-transfer-encoding", "")).strip().lower()
    if encoding == "base64":
        known = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
        if re.search(rb"[^A-Za-z0-9+/=\s]", body):
            problems.append("A part is no valid base64; it is read as far as possible.")
        return binascii.a2b_base64(known[: len(known) - (len(known) % 4 == 1)] + b"==")
    return binascii.a2b_qp(body) if encoding == "quoted-printable" else body


def decoded_header(value: str) -> str:
    """A header value with its encoded words (RFC 2047) read; what cannot be read stays as it is."""

    def word(match: re.Match[str]) -> str:
        charset, encoding, content = match.groups()
        raw = content.encode("ascii", "replace")
        raw = binascii.a2b_base64(raw + b"==") if encoding in "bB" else binascii.a2b_qp(raw, header=True)
        # The language suffix is RFC 2231 §5.
        return text_of(raw, charset.partition("*")[0])[0]

    return _ENCODED_WORD.sub(lambda match: tolerant(partial(word, match), match[0]), value)
