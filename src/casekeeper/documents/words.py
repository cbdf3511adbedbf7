"""Words of a text as the search index has them, and the piece of a text that shows them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from casekeeper.documents.query import And, Field, Near, Not, Or, Phrase, Term, Word

SNIPPET_CHARS: Final = 2_000
"""So much of a text around the first word found is enough for a snippet."""

_TOKEN = re.compile(r"[^\W_]+")
_WORD = re.compile(r"\w+")
_TOKEN_MAX: Final = 200
_SNIPPET_WORDS: Final = 24
_FIRST_MAX: Final = 3


def tokens(text: str) -> Iterator[str]:
    """The words of a text: letters and digits, without case and accents."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in folded if not unicodedata.combining(c))
    for found in _TOKEN.finditer(bare):
        yield found[0][:_TOKEN_MAX]


def sought_in(term: Term) -> list[str]:
    """The words that a document was found by: those that it must hold, or may; not those that it must not."""
    match term:
        case Word(text) | Phrase(text) | Field(_, Word(text) | Phrase(text)):
            return [*tokens(text)]
        case Near(first, second):
            return [*tokens(first.text), *tokens(second.text)]
        case And(terms) | Or(terms):
            return [word for one in terms for word in sought_in(one)]
        case Not(Not(inner)):
            return sought_in(inner)
        case _:
            return []


def first_words(sought: Sequence[str]) -> list[str]:
    """The words at one of which a snippet begins, the first that stands in the text."""
    return [*dict.fromkeys(sought)][:_FIRST_MAX]


def snippet_of(text: str, sought: frozenset[str]) -> tuple[str, list[tuple[int, int]]]:
    """Some 24 words around the first one sought, and where sought words stand in them."""
    text = " ".join(text.split())
    words = [*_WORD.finditer(text)]
    hit = next((number for number, word in enumerate(words) if _is_one(word[0], sought)), 0) if sought else 0
    first = max(0, hit - _SNIPPET_WORDS // 4)
    shown = words[first : first + _SNIPPET_WORDS]
    if not shown:
        return "", []
    is_whole = first + _SNIPPET_WORDS >= len(words)
    start, end = (shown[0].start() if first else 0), (len(text) if is_whole else shown[-1].end())
    before = "…" if first else ""
    shift = len(before) - start
    places = [(word.start() + shift, word.end() + shift) for word in shown if _is_one(word[0], sought)]
    return f"{before}{text[start:end]}{'' if is_whole else '…'}", places


def _is_one(word: str, sought: frozenset[str]) -> bool:
    # Most words are plain, and most texts have hundreds of them.
    if word.isascii() and "_" not in word:
        return word.lower() in sought
    return not sought.isdisjoint(tokens(word))
