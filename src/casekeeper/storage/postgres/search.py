"""Gmail's language over PostgreSQL's text search; the same rules as `sqlite.search`."""

from collections.abc import Sequence
from typing import Any, Final

from casekeeper.clock import to_us
from casekeeper.documents.exact_terms import exact_term
from casekeeper.documents.query import And, ExactTerm, Field, Near, Not, Or, Phrase, Sent, Size, Term, Word
from casekeeper.documents.search import FACETED_MAX, Facets, Order, PageStart, Ranked
from casekeeper.documents.words import first_words, sought_in, tokens
from casekeeper.storage.postgres.store import PostgresStore
from casekeeper.storage.sql.documents import SUMMARY, scope_word
from casekeeper.storage.sql.search import DATE, FACETS, around, facets_of, ranked

_COLUMNS: Final = {
    "from": "sender",
    "to": "people",
    "cc": "cc",
    "bcc": "bcc",
    "subject": "title",
    "filename": "filenames",
}
_FROM = "FROM document_words JOIN documents ON documents.rid = document_words.rid"
# Weights of D, C, B, A; longer texts count less, as in BM25.
_RANK = "ts_rank('{{0.25, 0.25, 0.5, 1.0}}', document_words.words, {query}::tsquery, 1)"
_NEAR_MAX = 100


class PostgresSearch:
    """Implements `Search`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def search(
        self, casefile_id: str, term: Term, order: Order, place: PageStart, limit: int
    ) -> Sequence[Ranked]:
        wanted = _Wanted(casefile_id, term)
        if order is Order.RELEVANCE:
            best = f"{_RANK.format(query=wanted.bound(wanted.ranked))} DESC, " if wanted.ranked else ""
            orders = f"{best}documents.rid DESC"
        else:
            down = " DESC" if order is Order.NEWEST else ""
            orders = f"{DATE}{down}, documents.rid{down}"
        behind = ""
        if place.behind is not None:
            at, rid = (f"{wanted.bound(key)}::bigint" for key in place.behind)
            behind = f" AND ({DATE}, documents.rid) {'<' if order is Order.NEWEST else '>'} ({at}, {rid})"
        columns = ", ".join(f"documents.{column.name}" for column in SUMMARY)
        body = around("strpos", [f"{wanted.bound(word)}::text" for word in first_words(wanted.sought)])
        sql = (
            f"SELECT documents.rid, {DATE}, {body}, {columns} {_FROM} "
            f"WHERE {wanted.where}{behind} ORDER BY {orders} "
            f"LIMIT {wanted.bound(limit)}::bigint OFFSET {wanted.bound(place.skip)}::bigint"
        )
        rows = await self._store.scan(lambda tx: tx.text(sql, wanted.values))
        return [ranked(*row, sought=wanted.sought) for row in rows]

    async def facets(self, casefile_id: str, term: Term) -> Facets:
        wanted = _Wanted(casefile_id, term)
        sql = f"{FACETS} {_FROM} WHERE {wanted.where} LIMIT {FACETED_MAX}"
        return facets_of(await self._store.scan(lambda tx: tx.text(sql, wanted.values)))


class _Wanted:
    """A term as a condition, its values, and the words by which hits are ranked and shown."""

    def __init__(self, casefile_id: str, term: Term) -> None:
        self.values: list[Any] = []
        self.sought = sought_in(term)
        scope = self._matches("marks", f"'{scope_word(casefile_id)}'")
        self.where = f"{scope} AND {self._condition(term)}"
        self.ranked = " | ".join(f"'{word}'" for word in dict.fromkeys(self.sought))

    def bound(self, value: object) -> str:
        """A parameter's place."""
        self.values.append(value)
        return f"${len(self.values)}"

    def _condition(self, term: Term) -> str:
        match term:
            case Word(text) | Phrase(text):
                return self._text("words", text)
            case Field(name, inner):
                return self._text(_COLUMNS[name], inner.text)
            case Near(first, second, words):
                return self._near([*tokens(first.text)], [*tokens(second.text)], words)
            case ExactTerm(kind, value):
                return self._matches("marks", f"'{exact_term(kind, value)}'")
            case Sent(is_after, instant):
                sign = ">=" if is_after else "<"
                there = "documents.sent_us IS NOT NULL"
                return f"({there} AND documents.sent_us {sign} {self.bound(to_us(instant))}::bigint)"
            case Size(is_larger, size):
                return f"(documents.size {'>' if is_larger else '<'} {self.bound(min(size, 2**62))}::bigint)"
            case And(terms):
                return self._joined(terms, " AND ", "TRUE")
            case Or(terms):
                return self._joined(terms, " OR ", "FALSE")
            case Not(inner):
                return f"(NOT {self._condition(inner)})"

    def _joined(self, terms: Sequence[Term], joint: str, empty: str) -> str:
        return f"({joint.join(self._condition(one) for one in terms) or empty})"

    def _text(self, column: str, text: str) -> str:
        words = [*tokens(text)]
        if not words:
            return "FALSE"
        return self._matches(column, " <-> ".join(f"'{word}'" for word in words))

    def _near(self, first: list[str], second: list[str], words: int) -> str:
        if not first or not second:
            return "FALSE"
        one, other = (" <-> ".join(f"'{word}'" for word in phrase) for phrase in (first, second))
        apart = range(1, min(words, _NEAR_MAX) + 2)
        # A distance counts from the last word of a phrase to the last of the next.
        ways = [f"(({one}) <{n + len(second) - 1}> ({other}))" for n in apart]
        ways += [f"(({other}) <{n + len(first) - 1}> ({one}))" for n in apart]
        return self._matches("words", " | ".join(ways))

    def _matches(self, column: str, query: str) -> str:
        return f"document_words.{column} @@ {self.bound(query)}::tsquery"
