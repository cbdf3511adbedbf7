"""Untrusted text, made safe to store and to show. Also: calls into libraries that such text may break."""

import codecs
import re
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

T = TypeVar("T")

TEXT_MAX_CHARS: Final = 1024 * 1024
# RFC 5322 §2.1.1 allows no longer line; a longer subject or name is noise.
LINE_MAX_CHARS: Final = 998

UNSAFE = re.compile(r"[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
# These answer to `bytes.decode` without being character sets of mails; some of them need quadratic time.
_NOT_CHARSETS = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}


def tolerant(read: Callable[[], T], default: T) -> T:
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


def text_of(raw: bytes, charset: str | None) -> tuple[str, str]:
    """The text and the charset that fitted: the declared one, else UTF-8, else Windows-1252, which always fits."""
    for name in (charset, "utf-8"):
        if name and (text := tolerant(partial(_strictly, raw, name), None)) is not None:
            return text, name
    return raw.decode("cp1252", "replace"), "windows-1252"


def _strictly(raw: bytes, charset: str) -> str | None:
    return None if codecs.lookup(charset[:40]).name in _NOT_CHARSETS else raw.decode(charset[:40])


def without_unsafe(text: str) -> str:
    """The text without what no store takes: null characters and lone surrogates."""
    return text.replace("\0", "\ufffd") if text.isascii() else UNSAFE.sub("\ufffd", text)


def line_of(value: str) -> str:
    """One clean line: no control characters, none that turn the reading direction, no double spaces."""
    if value.isascii() and value.isprintable():
        # As nearly all are.
        return " ".join(value[: 4 * LINE_MAX_CHARS].split())[:LINE_MAX_CHARS]
    value = UNSAFE.sub("\ufffd", value[: 4 * LINE_MAX_CHARS])
    return " ".join(_CONTROL.sub(" ", value).split())[:LINE_MAX_CHARS]
