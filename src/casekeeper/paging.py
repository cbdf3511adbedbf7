"""Pages and their cursors: keyset cursors, opaque and signed, never offsets."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

import orjson
from pydantic import BaseModel, Field

from casekeeper.errors import CursorInvalid

T = TypeVar("T")

Limit = Annotated[int, Field(ge=1, le=200, description="How many items a page holds at most.")]
DEFAULT_LIMIT = 50

# A cursor holds a handful of keys; anything longer was not made here.
_CURSOR_MAX = 1024
_MAC_BYTES = 16


class Page(BaseModel, Generic[T]):
    """One page of a list, and how to get the next."""

    items: list[T]
    next_cursor: str | None = None
    has_more: bool = False


class Cursors:
    """Seals the last keys of a page into an opaque cursor and opens it again.

    A cursor is bound to its query: opened with other filters, it is refused. The key is the deployment's secret,
    so cursors survive a restart and are the same on every worker.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, query: str, last: Sequence[int | str]) -> str:
        """The cursor behind `last`, the ordering keys of the page's last item."""
        body = orjson.dumps([self._digest(query), *last])
        return urlsafe_b64encode(self._mac(body) + body).rstrip(b"=").decode()

    def open(self, query: str, cursor: str) -> list[int | str]:
        """The ordering keys inside a cursor.

        Raises:
            CursorInvalid: It was not sealed here, or for another query.
        """
        try:
            if len(cursor) > _CURSOR_MAX:
                raise CursorInvalid
            sealed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            mac, body = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(body)):
                raise CursorInvalid
            digest, *last = orjson.loads(body)
        except ValueError as error:
            raise CursorInvalid from error
        if digest != self._digest(query):
            raise CursorInvalid
        return last

    def page(self, query: str, rows: Sequence[T], limit: int, keys: Sequence[Sequence[int | str]]) -> Page[T]:
        """A page out of up to `limit + 1` rows; the extra row only says that there are more."""
        more = len(rows) > limit
        cursor = self.seal(query, keys[limit - 1]) if more else None
        return Page[T](items=list(rows[:limit]), next_cursor=cursor, has_more=more)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, b"cursor\x00" + body, "sha256")[:_MAC_BYTES]

    @staticmethod
    def _digest(query: str) -> str:
        return hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()[:16]
