"""Finding documents: what a search asks, what it answers, and its pages."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, Protocol

from pydantic import BaseModel, Field, StringConstraints

from casekeeper.clock import Clock
from casekeeper.documents.document import DocumentSummary
from casekeeper.documents.exact_terms import KIND
from casekeeper.documents.query import QUERY_MAX_CHARS, And, ExactTerm, Sent, Size, Term, leaves
from casekeeper.documents.query_parser import parse_query
from casekeeper.paging import DEFAULT_LIMIT, Cursors, Limit, Page
from casekeeper.values import value

FACETED_MAX: Final = 20_000
"""Facets count so many documents at most."""

QueryText = Annotated[
    str,
    StringConstraints(max_length=QUERY_MAX_CHARS),
    Field(
        description='As in Gmail: words, "phrases", from: to: cc: subject: after: before: newer_than: has:attachment '
        "filename: label: larger: -without OR () {}. Without anything, everything is found."
    ),
]


class Order(StrEnum):
    """What comes first. By relevance, documents that match alike come last filed first."""

    RELEVANCE = "relevance"
    NEWEST = "newest"
    OLDEST = "oldest"


class Hit(DocumentSummary):
    """A document that a search found."""

    snippet: str = Field(default="", description="Text around the words found, or its beginning.")
    highlights: list[tuple[int, int]] = Field(
        default=[], description="Where the words stand in the snippet: start and end, in characters."
    )


class Facet(BaseModel):
    """A value, and how many of the documents found have it."""

    value: str
    count: int


class Facets(BaseModel):
    """How the documents found are spread; the most frequent values first, at most 20 of each."""

    total: int = Field(description="Documents counted; 20,000 at most.")
    kinds: list[Facet] = []
    senders: list[Facet] = []
    years: list[Facet] = []
    labels: list[Facet] = []


class Found(Page[Hit]):
    """A page of documents found; facets with the first page, where they were asked for."""

    facets: Facets | None = None


@value
class PageStart:
    """Where a page starts: after so many hits by relevance, or after the keys of the last hit by date."""

    skip: int = 0
    behind: tuple[int, int] | None = None


@value
class Ranked:
    """A hit and the keys by which it is sorted by date."""

    hit: Hit
    keys: tuple[int, int]


class SearchStore(Protocol):
    """Search in a store. A document is found as soon as its filing was acknowledged."""

    async def search(
        self, casefile_id: str, term: Term, order: Order, place: PageStart, limit: int
    ) -> Sequence[Ranked]:
        """Hits of this casefile behind the place; deleted documents are never among them."""
        ...

    async def facets(self, casefile_id: str, term: Term) -> Facets:
        """How all hits are spread."""
        ...


class SearchDocuments(BaseModel):
    """A search of one casefile."""

    query: QueryText = ""
    kind: Annotated[str, StringConstraints(max_length=40)] | None = None
    order: Order = Order.RELEVANCE
    facets: bool = False
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


async def find(
    store: SearchStore,
    cursors: Cursors,
    clock: Clock,
    casefile_id: str,
    user_id: str,
    wanted: SearchDocuments,
) -> Found:
    """A page of the documents that match.

    Raises:
        CursorInvalid: The cursor belongs to another search.
    """
    term = parse_query(wanted.query, clock(), user_id)
    if wanted.kind is not None:
        terms = term.terms if isinstance(term, And) else (term,)
        term = And((ExactTerm(KIND, wanted.kind), *terms))
    # Nothing to rank by: the best is what is newest.
    order = Order.NEWEST if wanted.order is Order.RELEVANCE and not _ranks(term) else wanted.order
    query = f"search {casefile_id} {order} {wanted.kind} {wanted.query}"
    place = PageStart()
    if wanted.cursor:
        first, *rest = (int(key) for key in cursors.open(query, wanted.cursor))
        place = PageStart(behind=(first, rest[0])) if rest else PageStart(skip=first)
    rows = await store.search(casefile_id, term, order, place, wanted.limit + 1)
    keys = [
        (place.skip + number,) if order is Order.RELEVANCE else row.keys
        for number, row in enumerate(rows, start=1)
    ]
    page = cursors.page(query, [row.hit for row in rows], wanted.limit, keys)
    facets = await store.facets(casefile_id, term) if wanted.facets and not wanted.cursor else None
    return Found(items=page.items, next_cursor=page.next_cursor, has_more=page.has_more, facets=facets)


def _ranks(term: Term) -> bool:
    """Whether a document can match better than another."""
    return any(not isinstance(leaf, ExactTerm | Sent | Size) for leaf in leaves(term))
