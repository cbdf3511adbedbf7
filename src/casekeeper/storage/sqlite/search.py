"""Gmail's language over SQLite's full-text index.

Everything that is words becomes one FTS5 expression, so that it is ranked and the index does the work; dates and sizes
are compared beside it. Only where both meet below an OR or a NOT, each group of words is a subquery of its own.
"""

from collections.abc import Sequence
from typing import Any, Final

from casekeeper.clock import to_us
from casekeeper.documents.exact_terms import exact_term
from casekeeper.documents.query import And, ExactTerm, Field, Near, Not, Or, Phrase, Sent, Size, Term, Word
from casekeeper.documents.search import FACETED_MAX, Facets, Order, PageStart, Ranked
from casekeeper.documents.words import first_words, sought_in
from casekeeper.storage.sql.documents import SUMMARY, scope_word
from casekeeper.storage.sql.search import DATE, FACETS, around, facets_of, ranked
from casekeeper.storage.sql.statements import Reads, Row, Tx

_COLUMNS: Final = {
    "from": "sender",
    "to": "{recipients cc bcc}",
    "cc": "cc",
    "bcc": "bcc",
    "subject": "title",
    "filename": "filenames",
}
# bm25 weighs title, sender, recipients, cc, bcc, filenames, body; the scope column counts for nothing.
_RANK = "bm25(document_search, 4.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0, 0.0)"
# The scope and the marks are in the index, and what was deleted is not: only dates and sizes need the documents.
_FROM = "FROM document_search CROSS JOIN documents ON documents.rid = document_search.rowid"
_WHERE = "WHERE document_search MATCH :match"
_ORDERS: Final = {
    Order.RELEVANCE: f"{_RANK}, document_search.rowid DESC",
    Order.NEWEST: f"{DATE} DESC, documents.rid DESC",
    Order.OLDEST: f"{DATE}, documents.rid",
}
_SUMMARIES = (
    f"SELECT documents.rid, {{body}}, {', '.join(f'documents.{column.name}' for column in SUMMARY)} "  # noqa: S608 - constants
    "FROM documents WHERE documents.rid IN ({rows})"
)


class SqliteSearch:
    """Implements `Search`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def search(
        self, casefile_id: str, term: Term, order: Order, place: PageStart, limit: int
    ) -> Sequence[Ranked]:
        wanted = _Wanted(casefile_id, term)
        values = {**wanted.values, "n": limit, "skip": place.skip}
        behind = ""
        if place.behind is not None:
            values["at"], values["rid"] = place.behind
            sign = "<" if order is Order.NEWEST else ">"
            behind = f" AND ({DATE}, documents.rid) {sign} (:at, :rid)"
        found = f"SELECT document_search.rowid, {DATE} {_FROM}"
        if order is Order.RELEVANCE and not wanted.where:
            found = "SELECT document_search.rowid, 0 FROM document_search"
        # First which ones, then what they are: sorting thousands of whole rows would take longer than finding them.
        sql = f"{found} {_WHERE}{wanted.where}{behind} ORDER BY {_ORDERS[order]} LIMIT :n OFFSET :skip"

        sought = sought_in(term)
        words = {f"word{number}": word for number, word in enumerate(first_words(sought))}
        body = around("instr", [f":{name}" for name in words])

        def read(tx: Tx) -> tuple[list[Row], dict[int, Row]]:
            places = tx.text(sql, values)
            rows = ", ".join(str(place[0]) for place in places)
            summaries = tx.text(_SUMMARIES.format(body=body, rows=rows), words) if rows else []
            return places, {row[0]: row[1:] for row in summaries}

        places, summaries = await self._reads.scan(read)
        return [ranked(rid, date_us, *summaries[rid], sought=sought) for rid, date_us in places]

    async def facets(self, casefile_id: str, term: Term) -> Facets:
        wanted = _Wanted(casefile_id, term)
        sql = f"{FACETS} {_FROM} {_WHERE}{wanted.where} LIMIT :n"
        values = {**wanted.values, "n": FACETED_MAX}
        return facets_of(await self._reads.scan(lambda tx: tx.text(sql, values)))


class _Wanted:
    """A term as an expression of FTS5 and as conditions on columns."""

    def __init__(self, casefile_id: str, term: Term) -> None:
        self._scope = f'scope : "{scope_word(casefile_id)}"'
        self.values: dict[str, Any] = {"casefile_id": casefile_id}
        terms = term.terms if isinstance(term, And) else (term,)
        words: list[str] = []
        without: list[str] = []
        beside: list[str] = []
        for one in terms:
            if isinstance(one, Not) and (text := self._words(one.term)) is not None:
                without.append(text)
            elif (text := self._words(one)) is not None:
                words.append(text)
            else:
                beside.append(self._condition(one))
        match = " AND ".join((self._scope, *words))
        if without:
            match = f"({match}) NOT ({' OR '.join(without)})"
        self.match = self.values["match"] = match
        self.where = "".join(f" AND {condition}" for condition in beside)

    def _words(self, term: Term) -> str | None:
        """The expression, if all of the term is words."""
        match term:
            case Word(text) | Phrase(text):
                return _quoted(text)
            case Near(first, second, words):
                return f"NEAR({_quoted(first.text)} {_quoted(second.text)}, {words})"
            case Field(name, inner):
                return f"{_COLUMNS[name]} : {_quoted(inner.text)}"
            case ExactTerm(kind, value):
                return f'scope : "{exact_term(kind, value)}"'
            case And(terms) | Or(terms):
                found = [self._words(one) for one in terms]
                if None in found:
                    return None
                joint = " AND " if isinstance(term, And) else " OR "
                return f"({joint.join(one for one in found if one)})" if found else f"({self._scope})"
            case Not(inner):
                text = self._words(inner)
                return None if text is None else f"({self._scope} NOT {text})"
            case Sent() | Size():
                return None

    def _condition(self, term: Term) -> str:
        text = self._words(term)
        if text is not None:
            found = "SELECT rowid FROM document_search WHERE document_search MATCH"
            return f"(documents.rid IN ({found} {self._bound(f'{self._scope} AND {text}')}))"
        match term:
            case Sent(is_after, instant):
                sign = ">=" if is_after else "<"
                there = "documents.sent_us IS NOT NULL"
                return f"({there} AND documents.sent_us {sign} {self._bound(to_us(instant))})"
            case Size(is_larger, size):
                # SQLite's integers end there.
                return f"(documents.size {'>' if is_larger else '<'} {self._bound(min(size, 2**62))})"
            case And(terms):
                return f"({' AND '.join(self._condition(one) for one in terms)})"
            case Or(terms):
                return f"({' OR '.join(self._condition(one) for one in terms)})"
            case Not(inner):
                return f"(NOT {self._condition(inner)})"
            case _:
                raise AssertionError("words were told apart before")

    def _bound(self, value: object) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"


def _quoted(text: str) -> str:
    # A quoted string is taken literally by FTS5, whatever is in it; one without a letter would match nothing.
    return '"' + text.replace('"', '""') + '"'
