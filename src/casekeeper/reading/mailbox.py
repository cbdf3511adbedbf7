"""From a file's bytes to its mails: tell the format, split mailboxes, parse. Pure; memory holds one mail at a time.

Nothing is dropped: what cannot be parsed comes out as it is, with the reason.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final, Literal

from casekeeper.reading.mail import Mail, UnreadableMail, has_mail_header, parse_mail
from casekeeper.values import value

# Gmail accepts mails up to 50 MB; a message above this is mostly a mailbox whose separators are damaged.
MESSAGE_MAX_BYTES: Final = 50 * 1024 * 1024
# Enough for the longest header that parse_mail reads.
SNIFF_BYTES: Final = 64 * 1024

_SEPARATOR = re.compile(rb"\n\r?\nFrom ")
# A separator that starts behind the last 7 bytes of the buffer may still be incomplete.
_SEPARATOR_BYTES = len(b"\n\r\nFrom ")
_ENVELOPE = re.compile(rb"From [^\n]{0,998}(?:\n|\Z)")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_QUOTED_LATER = re.compile(rb"(?<=\n)>(>*From )")
_MBOX_START = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*From (?![ \t]*:)[^\n]*\n>?[!-9;-~]+[ \t]*:")
# Every mail program writes the time into it; a sentence of a mail that begins with "From" has none.
_DATED_SEPARATOR = re.compile(rb"\n\r?\nFrom [^\n]*[0-9]:[0-9]{2}")
_MAILBOX_NAMES = (".mbox", ".mbx")
_MBOX_LATER = re.compile(rb"(?:\A|\n\r?\n)From ")


@value
class Piece:
    """A part of a message that is larger than the limit; joined in order, the pieces are the message.

    Attributes:
        raw: Within the limit; cut behind a line's end where there is one.
        number: 1 for the piece with the header.
        is_last: Whether the message ends with it.
    """

    raw: bytes
    number: int
    is_last: bool


@value
class Parsed:
    """One message of a file.

    Attributes:
        raw: The message's own bytes, without mailbox separator and mailbox quoting; never changed otherwise, so the
            same mail has the same bytes in an .eml file and in a mailbox.
        sha256: Of `raw`, 64 lower-case hexadecimal digits.
        mail: What it says; None when it cannot be parsed.
        problem: Why `mail` is None, or why `raw` is only a piece of the message; else None.
    """

    raw: bytes
    sha256: str
    mail: Mail | None
    problem: str | None


def sniff(head: bytes, filename: str) -> Literal["mbox", "eml", "unknown"]:
    """The format of a file that starts with `head` (SNIFF_BYTES are enough).

    The content decides. The name only helps a mailbox (`.mbox`, `.mbx`) that starts with something broken.
    """
    if _MBOX_START.match(head):
        return "mbox"
    if has_mail_header(head):
        return "eml"
    named_mailbox = filename.lower().endswith(_MAILBOX_NAMES)
    return "mbox" if named_mailbox and b"\x00" not in head and _MBOX_LATER.search(head) else "unknown"


def read_mailbox(
    chunks: Iterable[bytes],
    filename: str,
    *,
    message_max: int = MESSAGE_MAX_BYTES,
    parse: Callable[[bytes], Mail] = parse_mail,
) -> Iterator[Parsed]:
    """Every message of a file, in its order: of a mailbox each one, of any other file the file itself.

    A file that opens like a mailbox but holds one message, and is not named as a mailbox, is that mail: its own bytes
    are kept, the `From ` line included. An empty file has none. What is no mail comes with `mail=None` and the reason. Of a message above
    `message_max` bytes every piece comes by itself, the first with what could be read of the mail.
    Lazy: a chunk is asked for when the messages before it have been taken.
    """
    stream = iter(chunks)
    head = bytearray()
    for chunk in stream:
        head += chunk
        if len(head) >= SNIFF_BYTES:
            break
    kind = sniff(bytes(head[:SNIFF_BYTES]), filename)
    if kind == "mbox" and not filename.lower().endswith(_MAILBOX_NAMES):
        # One more byte than a message may have says that it is not one.
        while len(head) <= message_max and (chunk := next(stream, None)) is not None:
            head += chunk
        if len(head) <= message_max and not _DATED_SEPARATOR.search(head):
            kind = "eml"
    for message in split(chain((bytes(head),), stream), is_mbox=kind == "mbox", message_max=message_max):
        yield _parsed(message, parse if kind != "unknown" else None)


def _parsed(message: bytes | Piece, parse: Callable[[bytes], Mail] | None) -> Parsed:
    raw = message.raw if isinstance(message, Piece) else message
    mail: Mail | None = None
    problem: str | None = None
    if parse is None:
        problem = "It is neither a mail nor a mailbox."
    elif not isinstance(message, Piece) or message.number == 1:
        try:
            mail = parse(raw)
        except UnreadableMail as unreadable:
            problem = str(unreadable)
    if isinstance(message, Piece):
        whole = f"Piece {message.number} of a message that is too large to be read whole."
        problem = f"{whole} {problem}" if problem else whole
    return Parsed(raw, hashlib.sha256(raw).hexdigest(), mail, problem)


def split(
    chunks: Iterable[bytes], *, is_mbox: bool, message_max: int = MESSAGE_MAX_BYTES
) -> Iterator[bytes | Piece]:
    """The messages in `chunks`, in their order, however the chunks fall; each as soon as its end is seen.

    What is no mailbox is one message. In a mailbox a message starts with a line `From ` at the beginning of the file or
    behind an empty line (RFC 4155, appendix A). Quoting is read as "mboxrd": a line of one or more `>` before `From `
    loses one `>`. In the older "mboxo" form that is right for every line that was quoted, and wrong only for a line that
    its author began with `>From `. The separator line and the empty line before it belong to the mailbox and are left
    out. Bytes before the first separator come as a message of their own; a mailbox that was cut off ends with what there
    is of its last message.

    Memory is bounded by `message_max` bytes and one chunk: a larger message comes as consecutive `Piece`s.
    """
    buffer = bytearray()
    searched = 0
    message = _Message(is_mbox)
    for chunk in chunks:
        if is_mbox and not buffer and message.is_new:
            # A byte order mark and empty lines before the first message.
            chunk = chunk.lstrip(b"\xef\xbb\xbf\r\n")
        buffer += chunk
        while True:
            found = _SEPARATOR.search(buffer, searched) if is_mbox else None
            end = found.start() + 1 if found else len(buffer) - _SEPARATOR_BYTES
            if end > message_max:
                cut = buffer.rfind(b"\n", 0, message_max) + 1 or message_max
                yield message.piece(buffer[:cut], is_last=False)
                del buffer[:cut]
                searched = max(0, searched - cut)
            elif found:
                yield message.rest(buffer[:end])
                del buffer[: found.end() - len(b"From ")]
                searched, message = 0, _Message(is_mbox)
            else:
                searched = max(0, end)
                break
    if is_mbox and buffer.endswith((b"\n\n", b"\n\r\n")):
        # The empty line that would stand before the next separator.
        del buffer[-2 if buffer.endswith(b"\r\n") else -1 :]
    if buffer:
        yield message.rest(buffer)


class _Message:
    """A message on its way out: how many pieces are gone, and whether the next one starts a line."""

    def __init__(self, is_mbox: bool) -> None:
        self._is_mbox = is_mbox
        self._pieces = 0
        self._starts_line = True

    @property
    def is_new(self) -> bool:
        return self._pieces == 0

    def rest(self, raw: bytearray) -> bytes | Piece:
        """All of the message, or its last piece."""
        piece = self.piece(raw, is_last=True)
        return piece if piece.number > 1 else piece.raw

    def piece(self, raw: bytearray, *, is_last: bool) -> Piece:
        own = bytes(raw)
        if self._is_mbox and self.is_new and (envelope := _ENVELOPE.match(own)):
            own = own[envelope.end() :]
        if self._is_mbox:
            own = (_QUOTED if self._starts_line else _QUOTED_LATER).sub(rb"\1", own)
        self._pieces += 1
        self._starts_line = raw.endswith(b"\n")
        return Piece(own, self._pieces, is_last)
