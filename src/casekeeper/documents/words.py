"""Words of a text as the search index has them, and the piece of a text that shows them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from casekeeper.documents.query import And, Field, Near, Not, Or, Phrase, Term, Word

SNIPPET_CHARS: Final = 2_000
"""So much of a text around the first word found is enough for a snippet."""

_TOKEN = re.compile(r"[^\W_]+")
_WORD = re.compile(r"\w+")
_TOKEN_MAX: Final = 200
_SNIPPET_WORDS: Final = 24
_WORDS_BEFORE: Final = 6
# Far more than six words take.
_BEFORE_MAX: Final = 400
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
    hit = _first(text, sought) if sought else 0
    words_before = [*_WORD.finditer(text, text.rfind(" ", 0, max(0, hit - _BEFORE_MAX)) + 1, hit)]
    start = words_before[-_WORDS_BEFORE:][0].start() if words_before else hit
    if not _WORD.search(text, 0, start):
        start = 0
    shown = [*islice(_WORD.finditer(text, start), _SNIPPET_WORDS + 1)]
    if not shown:
        return "", []
    is_whole = len(shown) <= _SNIPPET_WORDS
    shown = shown[:_SNIPPET_WORDS]
    end = len(text) if is_whole else shown[-1].end()
    before = "…" if start else ""
    shift = len(before) - start
    places = [(word.start() + shift, word.end() + shift) for word in shown if _is_one(word[0], sought)]
    return f"{before}{text[start:end]}{'' if is_whole else '…'}", places


def _first(text: str, sought: frozenset[str]) -> int:
    """Where the first word sought begins; 0 if there is none."""
    # A text that was cut begins with a sign that says so.
    plain = text.removeprefix("…")
    if not plain.isascii():
        return next((word.start() for word in _WORD.finditer(text) if _is_one(word[0], sought)), 0)
    # Most texts are plain: there a search in them is many times as fast as looking at every word.
    lowered = plain.lower()
    places = [place for word in sought if (place := _find(lowered, word)) >= 0]
    if not places:
        return 0
    place = min(places)
    while place and (lowered[place - 1] == "_" or lowered[place - 1].isalnum()):
        # What is shown are words of the text, in which an underscore parts nothing.
        place -= 1
    return place + len(text) - len(plain)


def _find(text: str, word: str) -> int:
    """Where a word of the index stands by itself in a plain text; -1 if nowhere."""
    place = text.find(word)
    while place >= 0:
        end = place + len(word)
        if not (text[place - 1 : place].isalnum() or text[end : end + 1].isalnum()):
            return place
        place = text.find(word, place + 1)
    return -1


def _is_one(word: str, sought: frozenset[str]) -> bool:
    # Most words are plain, and most texts have hundreds of them.
    if word.isascii() and "_" not in word:
        return word.lower() in sought
    return not sought.isdisjoint(tokens(word))
