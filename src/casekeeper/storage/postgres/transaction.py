"""One transaction, or one reader's connection, on PostgreSQL; it is written without `await`, inside a greenlet."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.util import await_only

from casekeeper.storage.postgres.combined import combined_reads, combined_writes
from casekeeper.storage.postgres.locks import Locks
from casekeeper.storage.postgres.vectors import vectors
from casekeeper.storage.sql.statements import Parameters, Question, Row, Static, Writing, numbered

_DIALECT = asyncpg_dialect(paramstyle="numeric_dollar")
# Numbers alone are written into its text. Commits hold locks for some milliseconds; what holds one for longer is not
# waited for by all.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_HURRY = "SET LOCAL lock_timeout = '50ms'"
_LOCK = {True: "pg_advisory_xact_lock(%d)", False: "pg_advisory_xact_lock_shared(%d)"}
# As many in one statement; a list of results has 1,664 at most.
_LOCKS = 256
_HEAD = "SELECT number FROM acl_head FOR %s"
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

    is_remote = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def begin(self, locks: Locks, *, feed: bool, is_in_hurry: bool) -> None:
        """Begin to write, and keep others from writing what the locks stand for until the transaction ends.

        `feed`: the head of the permission feed as well, where it is among them. In a hurry no lock is waited for long.
        """
        # Whatever the server's default is: under the head of the feed, the newest state must be seen.
        statements = [_BEGIN]
        if is_in_hurry:
            statements.append(_HURRY)
        wanted = [_LOCK[alone] % number for number, alone in locks.advisory]
        for start in range(0, len(wanted), _LOCKS):
            statements.append(f"SELECT {', '.join(wanted[start : start + _LOCKS])}")
        if feed and locks.head:
            statements.append(_HEAD % locks.head)
        self._send("; ".join(statements))

    def commit(self) -> None:
        """End the transaction; when this returns, it is on disk."""
        self._send("COMMIT")

    def roll_back(self) -> None:
        """End the transaction without a trace."""
        self._send("ROLLBACK")

    def _send(self, text: str) -> None:
        await_only(self._connection.execute(text))

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

    def ask(self, questions: Sequence[Question]) -> None:
        if not questions:
            return
        texts, values = _placed([(question.statement, (question.values,)) for question in questions])
        answer = await_only(self._connection.fetchrow(combined_reads(texts), *values))
        for question, rows in zip(questions, answer, strict=True):
            question.take([tuple(row) for row in rows])

    def write(
        self, changes: Sequence[Writing], last: Static | None = None
    ) -> tuple[Sequence[int], Row | None]:
        if not changes:
            return (), None if last is None else self.one(last)
        texts, values = _placed(changes)
        then = None if last is None else last.by_place(_DIALECT, {})[0]
        counts, *seen = await_only(self._connection.fetchrow(combined_writes(texts, then), *values))
        return counts, tuple(seen[0][0]) if seen else None

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


def _placed(statements: Sequence[Writing]) -> tuple[tuple[str, ...], list[Any]]:
    """Their texts, and the values of all of them in their order."""
    texts: list[str] = []
    values: list[Any] = []
    # Of all of them in one form, so that there are not too many texts to be prepared.
    has_many = any(len(rows) > 1 for _, rows in statements)
    for statement, rows in statements:
        if isinstance(statement, Static):
            text, given = statement.by_place(_DIALECT, rows[0])
            values += _clean(given)
        elif has_many:
            text, lists = statement.of_many(_DIALECT, rows)
            values += map(_clean, lists)
        else:
            text, given = statement.of_one(_DIALECT, rows[0])
            values += _clean(given)
        texts.append(text)
    return tuple(texts), values


def _clean(values: Iterable[Any]) -> list[Any]:
    # PostgreSQL's text holds no NUL.
    return [v.replace("\x00", "\ufffd") if isinstance(v, str) and "\x00" in v else v for v in values]
