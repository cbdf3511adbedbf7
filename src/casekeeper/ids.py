"""Identifiers: their types, their spelling and how they are minted.

An id is random enough to be unguessable in practice, yet no id opens a door by itself. Stores insert with
create-if-absent; on the rare collision the caller draws again.
"""

import os
import re
import secrets
import threading
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

from casekeeper.clock import to_us

_CASEFILE = r"^cf_[0-9]{6}_[0-9a-f]{6}$"
_SESSION = r"^ts_[0-9]{6}_[0-9a-z]{1,8}_[0-9a-f]{6}$"
_EVENT = r"^evt_[0-9a-z]{1,40}$"
_DOCUMENT = r"^doc_[0-9a-z]{1,40}$"
_UPLOAD = r"^upl_[0-9a-f]{32}$"
_KEY = r"^key_[0-9a-f]{12}$"
REQUEST_ID = r"^[A-Za-z0-9_.:-]{1,128}$"

_USER = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_USER_MAX = 254  # RFC 5321 §4.5.3.1.3: a path is at most 256 octets, two of them the angle brackets


def canonical_user(value: str) -> str:
    """The one spelling of a user id: e-mail-like, lower case, at most 254 characters.

    Raises:
        ValueError: The text is not a user id.
    """
    if len(value) > _USER_MAX or not _USER.fullmatch(value):
        raise ValueError("a user id looks like an e-mail address, at most 254 characters")
    return value.lower()


CasefileId = Annotated[str, StringConstraints(pattern=_CASEFILE)]
SessionId = Annotated[str, StringConstraints(pattern=_SESSION)]
EventId = Annotated[str, StringConstraints(pattern=_EVENT)]
DocumentId = Annotated[str, StringConstraints(pattern=_DOCUMENT)]
UploadId = Annotated[str, StringConstraints(pattern=_UPLOAD)]
KeyId = Annotated[str, StringConstraints(pattern=_KEY)]
RequestId = Annotated[str, StringConstraints(pattern=REQUEST_ID)]
UserId = Annotated[
    str,
    AfterValidator(canonical_user),
    WithJsonSchema({"type": "string", "pattern": f"^{_USER.pattern}$", "maxLength": _USER_MAX}),
]


class _RandomBytes:
    """The operating system's random bytes, fetched a few thousand at a time.

    Every fetch lets go of the interpreter, and under load gets it back much later than the bytes took.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, count: int) -> bytes:
        with self._lock:
            if len(self._bytes) < count:
                self._bytes = secrets.token_bytes(4096)
            taken, self._bytes = self._bytes[:count], self._bytes[count:]
        return taken

    def _forget(self) -> None:
        # A child must not hand out what its parent will.
        self._lock, self._bytes = threading.Lock(), b""


random_bytes = _RandomBytes()
"""Unguessable bytes, at most 4096 at once."""


def new_casefile_id(now: datetime) -> str:
    """`cf_{yymmdd}_{6 hex}`."""
    return f"cf_{now:%y%m%d}_{secrets.token_hex(3)}"


def new_session_id(now: datetime, user_id: str, casefile_id: str) -> str:
    """`ts_{yymmdd}_{last 4 alphanumerics of the user}{last 4 of the casefile}_{6 hex}`."""
    user = "".join(c for c in user_id.lower() if c.isascii() and c.isalnum())[-4:]
    return f"ts_{now:%y%m%d}_{user}{casefile_id[-4:]}_{secrets.token_hex(3)}"


def _sortable(now: datetime) -> str:
    # Milliseconds first, so that ids sort by age; 64 random bits behind them, so that they cannot be guessed.
    return f"{to_us(now) // 1000:011x}{random_bytes(8).hex()}"


def new_event_id(now: datetime) -> str:
    """`evt_` and a part that sorts by age."""
    return f"evt_{_sortable(now)}"


def new_document_id(now: datetime) -> str:
    """`doc_` and a part that sorts by age."""
    return f"doc_{_sortable(now)}"


def new_upload_id() -> str:
    """`upl_` and 128 random bits: whoever holds it may file the upload, if it is theirs."""
    return f"upl_{secrets.token_hex(16)}"


def new_key_id() -> str:
    """`key_` and 48 random bits; names an API key, does not open anything."""
    return f"key_{secrets.token_hex(6)}"


def new_pseudonym() -> str:
    """`usr_` and 64 random bits: how the record's headers name an account."""
    return f"usr_{secrets.token_hex(8)}"


def new_request_id() -> str:
    """A request id for a call that came without one."""
    return f"req_{random_bytes(12).hex()}"
