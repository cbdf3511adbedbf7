"""Words as PostgreSQL's text search keeps them, cut and folded as SQLite's index does it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from casekeeper.documents.words import tokens

# Limits of PostgreSQL's tsvector: 1 MB in all, positions up to 16,383, at most 256 of them for a word.
_BYTES_MAX: Final = 900_000
_POSITION_MAX: Final = 16_383
_POSITIONS_MAX: Final = 256
# Words of two fields must not be neighbours.
_GAP: Final = 50


def vectors(words: Mapping[str, Any]) -> list[str]:
    """The columns of `document_words`, as tsvector literals, in their order."""
    title, sender, recipients, cc, bcc, files, body = (
        str(words[name]) for name in ("title", "sender", "recipients", "cc", "bcc", "filenames", "body")
    )
    people = "\n".join((recipients, cc, bcc))
    # A is the title, B the sender and file names: `ts_rank` weighs them.
    everything = [(title, "A"), (sender, "B"), (files, "B"), (people, ""), (body, "")]
    single = (title, sender, people, cc, bcc, files)
    marks = " ".join(f"'{mark}'" for mark in str(words["scope"]).split())
    return [_vector(everything), *(_vector([(text, "")]) for text in single), marks]


def _vector(parts: Iterable[tuple[str, str]]) -> str:
    places: dict[str, list[str]] = {}
    position = size = 0
    for text, weight in parts:
        for token in tokens(text):
            position += 1
            known = places.get(token)
            if known is None:
                size += len(token.encode()) + 8
                if size > _BYTES_MAX:
                    continue
                known = places[token] = []
            if len(known) < _POSITIONS_MAX:
                size += 2
                known.append(f"{min(position, _POSITION_MAX)}{weight}")
        position += _GAP
    return " ".join(f"'{token}':{','.join(dict.fromkeys(where))}" for token, where in places.items())
