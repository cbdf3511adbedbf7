"""Search queries as a typed tree; each store translates it for its own index.

The language is Gmail's (`docs/search.md`); `query_parser.py` reads it. A further kind of term is a further class in
`Term`; a store that matches with `assert_never` then shows where it is missing.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal, TypeAlias

from casekeeper.values import value

QUERY_MAX_CHARS: Final = 2_000
TERMS_MAX: Final = 100
DEPTH_MAX: Final = 10

FieldName: TypeAlias = Literal["from", "to", "cc", "bcc", "subject", "filename"]


@value
class Word:
    """A word as typed, without spaces; upper and lower case mean the same. Holds at least a letter or a digit."""

    text: str


@value
class Phrase:
    """Words in this order, next to each other. Holds at least a letter or a digit."""

    text: str


@value
class Near:
    """Both within so many words of each other, in either order."""

    first: Word | Phrase
    second: Word | Phrase
    words: int


@value
class Field:
    """The term must be in this field; `to` includes those in copy and blind copy, as in Gmail."""

    name: FieldName
    term: Word | Phrase


@value
class ExactTerm:
    """What a document is, not what it says: a label, a message id … (`documents/exact_terms.py`)."""

    kind: str
    value: str


@value
class Sent:
    """Sent at this instant or later, or before it. A document without a date is neither."""

    is_after: bool
    instant: datetime


@value
class Size:
    """Larger than so many bytes, or smaller."""

    is_larger: bool
    size: int


@value
class And:
    """All must match, in any order; without terms everything does."""

    terms: "tuple[Term, ...]" = ()


@value
class Or:
    """One of them must match."""

    terms: "tuple[Term, ...]"


@value
class Not:
    """The term must not match."""

    term: "Term"


Term: TypeAlias = Word | Phrase | Near | Field | ExactTerm | Sent | Size | And | Or | Not

EVERYTHING: Final = And()


def leaves(term: Term) -> Iterator[Term]:
    """The terms that hold no others, in their order."""
    match term:
        case And(terms) | Or(terms):
            for one in terms:
                yield from leaves(one)
        case Not(inner):
            yield from leaves(inner)
        case _:
            yield term
