"""Search results from rows, for the indexes of all stores."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from casekeeper.clock import from_us
from casekeeper.documents.search import Facet, Facets, Hit, Ranked
from casekeeper.documents.words import SNIPPET_CHARS, snippet_of
from casekeeper.storage.sql.documents import summary_fields
from casekeeper.storage.sql.statements import Row

DATE = "coalesce(documents.sent_us, documents.created_us)"
"""By what documents are ordered, in SQL."""
FACETS = "SELECT documents.kind, documents.sender, documents.sent_us, documents.labels"
"""What `facets_of` takes, in SQL."""

_FACETS_MAX = 20
# How much is shown before the word found, in characters.
_BEFORE = 200


def ranked(rid: int, date_us: int, body: str, *summary: Any, sought: Sequence[str]) -> Ranked:
    """A hit: its number and date, the piece of its text, and what `documents.SUMMARY` selects."""
    snippet, highlights = snippet_of(body, frozenset(sought))
    hit = Hit(**summary_fields(summary), snippet=snippet, highlights=highlights)
    return Ranked(hit, (int(date_us), int(rid)))


def facets_of(rows: Sequence[Row]) -> Facets:
    """The facets of rows of kind, sender, date and labels."""
    kinds, senders, years, labels = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for kind, sender, sent_us, marks in rows:
        kinds[kind] += 1
        if sender:
            senders[sender] += 1
        if sent_us is not None:
            years[str(from_us(sent_us).year)] += 1
        if marks:
            labels.update(marks.split("\n"))
    return Facets(
        total=len(rows),
        kinds=_most(kinds),
        senders=_most(senders),
        years=_most(years),
        labels=_most(labels),
    )


def _most(counted: "Counter[str]") -> list[Facet]:
    best = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:_FACETS_MAX]
    return [Facet(value=value, count=count) for value, count in best]


def around(position: str, words: Sequence[str]) -> str:
    """The piece of the text in which the first of these words stands, or its beginning, in SQL.

    `position` is the database's function that finds a text in another. Snippets of the index itself take time by the
    square of how often a word stands in a text.
    """
    places = [f"nullif({position}(lower(documents.body), {word}), 0)" for word in words]
    start = f"coalesce({', '.join((*places, '1', '1'))})"
    first = f"(CASE WHEN {start} > {_BEFORE} THEN {start} - {_BEFORE} ELSE 1 END)"
    cut = f"CASE WHEN {start} > {_BEFORE} THEN '… ' ELSE '' END"
    return f"{cut} || substr(documents.body, {first}, {SNIPPET_CHARS})"
