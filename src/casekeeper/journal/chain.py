"""How facts are hashed. `docs/record-format.md` fixes it with test vectors; `verify.py` checks it independently.

    commit = SHA-256(0x00 | salt (16 bytes) | payload)
    hash   = SHA-256(0x01 | previous hash | header | commit)

The header is canonical JSON; the payload is committed to through a salt, so that both can be erased later while
the chain still verifies.
"""

import hashlib
from typing import Any

import orjson

from casekeeper.ids import random_bytes

SALT_BYTES = 16


def new_salt() -> bytes:
    """Sixteen random bytes, one salt a fact, so that equal payloads cannot be recognized as equal."""
    return random_bytes(SALT_BYTES)


def commitment(salt: bytes, payload: bytes) -> bytes:
    """What the chain holds of a payload."""
    return hashlib.sha256(b"\x00" + salt + payload).digest()


def genesis(casefile_id: str, session_id: str) -> bytes:
    """The hash before the first fact of a session."""
    return hashlib.sha256(f"casekeeper record 1\n{casefile_id}\n{session_id}".encode()).digest()


def canonical(header: dict[str, Any]) -> bytes:
    """Sorted keys, UTF-8, no spaces. Headers hold strings, integers, null-free objects; never floats."""
    return orjson.dumps(header, option=orjson.OPT_SORT_KEYS)


def link(previous: bytes, header: bytes, commit: bytes) -> bytes:
    """The hash of a fact."""
    return hashlib.sha256(b"\x01" + previous + header + commit).digest()
