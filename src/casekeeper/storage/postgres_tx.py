"""One transaction, or one reader's connection, on PostgreSQL; it is written without `await`, inside a greenlet."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.util import await_only

from casekeeper.storage.postgres_locks import Locks
from casekeeper.storage.postgres_words import vectors
from casekeeper.storage.sql_statements import Bulk, Parameters, Row, Static, numbered

_DIALECT = asyncpg_dialect(paramstyle="numeric_dollar")
_TAKEN = (
    "CASE WHEN alone THEN pg_advisory_xact_lock(key)::text ELSE pg_advisory_xact_lock_shared(key)::text END"
)
_WANTED = "unnest($1::bigint[], $2::bool[]) AS wanted (key, alone)"
_LOCK = f"SELECT {_TAKEN} FROM {_WANTED}"  # noqa: S608 - words of ours
# Commits hold locks for some milliseconds; whoever holds one for longer is not waited for by all.
_LOCK_SOON = "WITH hurry AS MATERIALIZED (SELECT set_config('lock_timeout', '50ms', true)) " + _LOCK.replace(
    "FROM ", "FROM hurry, "
)
_INDEX = (
    "INSERT INTO document_words (rid, words, title, sender, people, cc, bcc, filenames, marks) VALUES "
    "($1, $2::tsvector, $3::tsvector, $4::tsvector, $5::tsvector, $6::tsvector, $7::tsvector, $8::tsvector, $9::tsvector)"
)
_UNINDEX = "DELETE FROM document_words WHERE rid IN (SELECT rid FROM documents WHERE casefile_id = $1)"
_UNINDEX_ONE = "DELETE FROM document_words WHERE rid = $1"


class MoreThanOnce(Exception):
    """A read takes more statements than one, so it needs a transaction to see one state."""


class Once:
    """A connection for a read of one statement, which sees one state by itself and is spared two round trips.

    It has what reads use and nothing to write with.

    Raises:
        MoreThanOnce: There is a second statement; nothing of it has been sent.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._is_used = False

    def fetchrow(self, *asked: Any) -> Any:
        """See asyncpg."""
        self._use()
        return self._connection.fetchrow(*asked)

    def fetch(self, *asked: Any) -> Any:
        """See asyncpg."""
        self._use()
        return self._connection.fetch(*asked)

    def _use(self) -> None:
        if self._is_used:
            raise MoreThanOnce
        self._is_used = True


class PostgresTx:
    """Implements `Tx` on a connection, inside a greenlet."""

    def __init__(self, connection: Any, *, is_in_hurry: bool = False) -> None:
        self._connection = connection
        self._lock = _LOCK_SOON if is_in_hurry else _LOCK

    def one(self, statement: Static, **values: Any) -> Row | None:
        text, given = statement.by_place(_DIALECT, values)
        row = await_only(self._connection.fetchrow(text, *_clean(given)))
        return None if row is None else tuple(row)

    def all(self, statement: Static, **values: Any) -> list[Row]:
        text, given = statement.by_place(_DIALECT, values)
        return self.text(text, given)

    def select(self, clause: ClauseElement, values: Parameters | None = None) -> list[Row]:
        text, names, constants = numbered(clause, _DIALECT)
        given = {**constants, **(values or {})}
        return self.text(text, [given.get(name) for name in names])

    def run(self, statement: Static, **values: Any) -> int:
        text, given = statement.by_place(_DIALECT, values)
        return self.change(text, *given)

    def many(self, statement: Static, rows: Sequence[Parameters]) -> int:
        if not rows:
            return 0
        placed = [statement.by_place(_DIALECT, row) for row in rows]
        await_only(self._connection.executemany(placed[0][0], [_clean(given) for _, given in placed]))
        # The server does not say how many it touched; foreign keys see to it that none is missing.
        return len(rows)

    def bulk(self, statement: Bulk, rows: Sequence[Parameters]) -> None:
        if rows:
            text, given = statement.unnested(_DIALECT, rows)
            await_only(self._connection.execute(text, *map(_clean, given)))

    def hold(self, locks: Locks, *, feed: bool) -> None:
        """Keep others from writing what the locks stand for until the transaction ends; before anything else.

        `feed`: the head of the permission feed as well, where it is among them.
        """
        if wanted := locks.advisory:
            self._take(*zip(*wanted, strict=True))
        if locks.head and feed:
            self.text(f"SELECT number FROM acl_head FOR {locks.head}")  # noqa: S608 - a word of ours

    def _take(self, keys: Sequence[int], alone: Sequence[bool]) -> None:
        await_only(self._connection.execute(self._lock, keys, alone))

    def index(self, rid: int, words: Parameters) -> None:
        self.change(_INDEX, rid, *vectors(words))

    def settle(self) -> None:
        pass

    def unindex(self, casefile_id: str) -> None:
        self.change(_UNINDEX, casefile_id)

    def unindex_one(self, rid: int) -> None:
        self.change(_UNINDEX_ONE, rid)

    def text(self, sql: str, values: Any = ()) -> list[Row]:
        return [tuple(row) for row in await_only(self._connection.fetch(sql, *_clean(values)))]

    def change(self, text: str, *values: Any) -> int:
        """Write; returns how many rows were touched."""
        status: str = await_only(self._connection.execute(text, *_clean(values)))
        return int(status.rsplit(" ", 1)[1])


def _clean(values: Iterable[Any]) -> list[Any]:
    # PostgreSQL's text holds no NUL.
    return [v.replace("\x00", "\ufffd") if isinstance(v, str) and "\x00" in v else v for v in values]
