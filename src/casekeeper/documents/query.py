"""What a reader looks for, as a typed tree; how it is found is each store's matter.

The language is a small part of Gmail's: words, `"phrases"`, `from:`, `to:`, `subject:`, `after:`, `before:`; all terms
must match. A further kind of term is a further class in `Term`; a store that matches with `assert_never` then shows
where it is missing.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final, Literal, TypeAlias

QUERY_MAX_CHARS: Final = 1_000
TERMS_MAX: Final = 50

FieldName: TypeAlias = Literal["from", "to", "subject"]

# An operator stands directly before its value; a quote ends a word, an unclosed one reaches to the end.
_TERM = re.compile(r'(?:(from|to|subject|after|before):)?(?:"([^"]*)"?|([^\s"]+))?', re.IGNORECASE)
_DATE = re.compile(r"([0-9]{4})([/-])([0-9]{1,2})\2([0-9]{1,2})")
_UNSAFE = re.compile(r"[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word as typed, without spaces; upper and lower case mean the same. Holds at least a letter or a digit."""

    text: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words in this order, next to each other. Holds at least a letter or a digit."""

    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """The term must be in this field of a mail; `to` includes those in copy, as in Gmail."""

    name: FieldName
    term: Word | Phrase


@dataclass(frozen=True, slots=True)
class After:
    """Sent on this day or later."""

    day: date

    @property
    def instant(self) -> datetime:
        """The first instant that matches: midnight UTC."""
        return datetime.combine(self.day, time.min, UTC)


@dataclass(frozen=True, slots=True)
class Before:
    """Sent before this day."""

    day: date

    @property
    def instant(self) -> datetime:
        """The first instant that no longer matches: midnight UTC."""
        return datetime.combine(self.day, time.min, UTC)


Term: TypeAlias = Word | Phrase | Field | After | Before


@dataclass(frozen=True, slots=True)
class Query:
    """All terms must match, in any order; without terms everything does."""

    terms: tuple[Term, ...]


def parse_query(text: str) -> Query:
    """The query that `text` means. Never fails: what is malformed is read as Gmail reads it.

    An unclosed quote reaches to the end. An operator with nothing behind it is left out, and so is a term without a
    letter or digit. An unknown operator and one with a bad date are words, as typed. Only the first 1,000 characters
    and 50 terms count. Operator names may be in upper case. Dates are `YYYY/MM/DD` or `YYYY-MM-DD`.
    """
    clean = _UNSAFE.sub(" ", text[:QUERY_MAX_CHARS])
    terms: list[Term] = []
    for match in _TERM.finditer(clean):
        if len(terms) < TERMS_MAX and (term := _term(match)):
            terms.append(term)
    return Query(tuple(terms))


def _term(match: re.Match[str]) -> Term | None:
    operator, phrase, word = match.groups()
    value = Word(word) if word is not None else Phrase((phrase or "").strip())
    if not any(character.isalnum() for character in value.text):
        return None
    if operator is None:
        return value
    name = operator.lower()
    if name in ("from", "to", "subject"):
        return Field(name, value)
    if day := _day(value.text):
        return After(day) if name == "after" else Before(day)
    return Word(match[0]) if isinstance(value, Word) else value


def _day(text: str) -> date | None:
    match = _DATE.fullmatch(text)
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None
