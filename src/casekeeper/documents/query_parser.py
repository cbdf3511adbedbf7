"""Reads Gmail's query language. Never fails: what is malformed is read as Gmail reads it (`docs/search.md`)."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, cast

from casekeeper.documents import exact_terms
from casekeeper.documents.query import (
    DEPTH_MAX,
    EVERYTHING,
    QUERY_MAX_CHARS,
    TERMS_MAX,
    And,
    ExactTerm,
    Field,
    FieldName,
    Near,
    Not,
    Or,
    Phrase,
    Sent,
    Size,
    Term,
    Word,
)
from casekeeper.documents.query_values import age, day, size

# An operator stands directly before its value; a quote ends a word, an unclosed one reaches to the end.
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<open>[({]) | (?P<close>[)}])
    | (?P<sign>[-+])(?=[^\s)}+-])
    | (?P<around>(?-i:AROUND)(?:\s+|(?=\())\(?(?P<words>[0-9]{1,4})\)?(?=[\s"({)]|\Z))
    | (?P<operator>[a-z_0-9]{1,20}):(?=[^\s)}])
    | "(?P<phrase>[^"]*)"?
    | (?P<word>[^\s"(){}]+)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_WORD = re.compile(r'"(?P<phrase>[^"]*)"?|(?P<word>[^\s"(){}]+)')
_UNSAFE = re.compile(r"[\x00\ud800-\udfff]")

_FIELDS: Final = {name: name for name in ("from", "to", "cc", "bcc", "subject", "filename")} | {
    "deliveredto": "to",
    "file": "filename",
}
_BOUNDS: Final = {
    "after": True,
    "newer": True,
    "before": False,
    "older": False,
}
_AGES: Final = {"newer_than": True, "older_than": False}
_SIZES: Final = {
    "size": True,
    "larger": True,
    "larger_than": True,
    "smaller": False,
    "smaller_than": False,
}
# Gmail finds these by the link in the text.
_LINKS: Final = {
    "drive": "drive.google.com",
    "document": "docs.google.com/document",
    "spreadsheet": "docs.google.com/spreadsheets",
    "presentation": "docs.google.com/presentation",
    "youtube": "youtube.com",
}
_OPERATORS: Final = frozenset(
    (
        *_FIELDS,
        *_BOUNDS,
        *_AGES,
        *_SIZES,
        "label",
        "l",
        "in",
        "is",
        "has",
        "category",
        "list",
        "rfc822msgid",
        "kind",
    )
)


def parse_query(text: str, now: datetime, me: str | None = None) -> Term:
    """The term that `text` means at the instant `now`; `me` is who asks, for `from:me`.

    Only the first 2,000 characters, 100 terms and 10 levels of brackets count.
    """
    return _Parser(_UNSAFE.sub(" ", text[:QUERY_MAX_CHARS]), now, me).whole()


@dataclass(slots=True)
class _Context:
    """What stands around a term: an operator before its bracket, how deep it is, and what ends it."""

    operator: str | None = None
    depth: int = 0
    closing: str = ""


class _Parser:
    def __init__(self, text: str, now: datetime, me: str | None) -> None:
        self._text = text
        self._at = 0
        self._now = now
        self._me = me
        self._count = 0

    def whole(self) -> Term:
        """Everything; a bracket that nobody opened is left out."""
        found: list[Term] = []
        while self._at < len(self._text):
            if (term := self._sequence(_Context())) is not None:
                found.append(term)
        return _all(found) or EVERYTHING

    def _next(self) -> re.Match[str] | None:
        if found := _TOKEN.match(self._text, self._at):
            self._at = found.end()
        else:
            self._at = len(self._text)
        return found

    def _sequence(self, context: _Context) -> Term | None:
        """Terms up to the bracket that closes them. OR binds its neighbours first, as in Gmail."""
        any_of = context.closing == "}"
        groups: list[list[Term]] = []
        joins = False
        while token := self._next():
            if token["close"]:
                break
            if token["word"] in ("OR", "|"):
                joins = bool(groups)
                continue
            if token["word"] == "AND":
                joins = False
                continue
            if token["around"]:
                self._near(groups, int(token["words"]), context)
                continue
            term = self._term(token, context)
            if term is None:
                continue
            if joins:
                groups[-1].append(term)
            else:
                groups.append([term])
            joins = False
        terms = [_any(group) for group in groups]
        return _any(terms) if any_of and terms else _all(terms)

    def _near(self, groups: list[list[Term]], words: int, context: _Context) -> None:
        """The term before and the one behind, if both are words; otherwise both must match."""
        token = self._next()
        behind = self._term(token, context) if token and not token["close"] else None
        if behind is None:
            return
        before = groups[-1][-1] if groups else None
        if isinstance(before, Word | Phrase) and isinstance(behind, Word | Phrase):
            groups[-1][-1] = Near(before, behind, words)
        else:
            groups.append([behind])

    def _term(self, token: re.Match[str], context: _Context) -> Term | None:
        if token["sign"]:
            behind = self._next()
            term = self._term(behind, context) if behind and not behind["close"] else None
            return Not(term) if term is not None and token["sign"] == "-" else term
        if token["open"]:
            return self._group(token["open"], context)
        if operator := token["operator"]:
            return self._operated(operator, context)
        return self._value(context.operator, token["phrase"], token["word"], token["word"])

    def _group(self, bracket: str, context: _Context) -> Term | None:
        if context.depth >= DEPTH_MAX:
            # Deeper brackets are as if they were not there.
            return None
        closing = ")" if bracket == "(" else "}"
        return self._sequence(replace(context, depth=context.depth + 1, closing=closing))

    def _operated(self, operator: str, context: _Context) -> Term | None:
        start = self._at - len(operator) - 1
        if operator.lower() not in _OPERATORS:
            # An unknown one is part of a word: `http://example.com`.
            self._at = start
            word = _WORD.match(self._text, self._at)
            assert word is not None
            self._at = word.end()
            return self._value(context.operator, None, word["word"], word["word"])
        if self._text[self._at] in "({":
            bracket = self._text[self._at]
            self._at += 1
            return self._group(bracket, replace(context, operator=operator.lower()))
        value = _WORD.match(self._text, self._at)
        assert value is not None
        self._at = value.end()
        return self._value(operator.lower(), value["phrase"], value["word"], self._text[start : value.end()])

    def _value(
        self, operator: str | None, phrase: str | None, word: str | None, typed: str | None
    ) -> Term | None:
        """A term; None if it says nothing. `typed` stands for it where its operator does not understand it."""
        text = (phrase or "").strip() if word is None else word
        if self._count >= TERMS_MAX or not _says_something(text):
            return None
        if operator is None and text.endswith(":") and text[:-1].lower() in _OPERATORS:
            # An operator with nothing behind it.
            return None
        self._count += 1
        plain: Word | Phrase = Phrase(text) if word is None else Word(text)
        if operator is None:
            return plain
        if operator in _FIELDS:
            return Field(cast("FieldName", _FIELDS[operator]), self._named(operator, plain))
        found = self._looked_up(operator, text)
        return found or (plain if typed is None or word is None else Word(typed))

    def _named(self, operator: str, plain: Word | Phrase) -> Word | Phrase:
        is_person = operator not in ("subject", "filename", "file")
        return Word(self._me) if is_person and self._me and plain.text.lower() == "me" else plain

    def _looked_up(self, operator: str, text: str) -> Term | None:
        """What an operator that is no field of a mail means by a value; None if nothing."""
        lowered = text.lower()
        if operator in _BOUNDS:
            instant = day(lowered)
            return instant and Sent(_BOUNDS[operator], instant)
        if operator in _AGES:
            instant = age(lowered, self._now)
            return instant and Sent(_AGES[operator], instant)
        if operator in _SIZES:
            number = size(lowered)
            return None if number is None else Size(_SIZES[operator], number)
        match operator:
            case "has":
                return _has(lowered)
            case "is" | "in":
                return _state(lowered)
            case "category":
                return ExactTerm(
                    exact_terms.LABEL, f"category {'personal' if lowered == 'primary' else lowered}"
                )
            case "list":
                return ExactTerm(exact_terms.LIST, text)
            case "rfc822msgid":
                return ExactTerm(exact_terms.ID, text)
            case "kind":
                return ExactTerm(exact_terms.KIND, lowered)
            case _:
                return ExactTerm(exact_terms.LABEL, text)


def _has(what: str) -> Term:
    if what in ("attachment", "attachments"):
        return ExactTerm(exact_terms.HAS, "attachment")
    if what == "userlabels":
        return ExactTerm(exact_terms.HAS, what)
    if what == "nouserlabels":
        return Not(ExactTerm(exact_terms.HAS, "userlabels"))
    # Everything else that Gmail knows is a star, which Takeout writes as a label.
    return Phrase(_LINKS[what]) if what in _LINKS else ExactTerm(exact_terms.LABEL, what)


def _state(what: str) -> Term:
    match what:
        case "anywhere" | "all":
            return EVERYTHING
        case "read":
            return Not(ExactTerm(exact_terms.LABEL, "unread"))
        case "draft" | "drafts":
            return Or((ExactTerm(exact_terms.LABEL, "draft"), ExactTerm(exact_terms.LABEL, "drafts")))
        case "chat" | "chats":
            return Or((ExactTerm(exact_terms.LABEL, "chat"), ExactTerm(exact_terms.LABEL, "chats")))
        case "archive":
            return ExactTerm(exact_terms.LABEL, "archived")
        case _:
            return ExactTerm(exact_terms.LABEL, what)


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _all(terms: list[Term]) -> Term | None:
    return And(tuple(terms)) if len(terms) > 1 else terms[0] if terms else None


def _any(terms: list[Term]) -> Term:
    return Or(tuple(terms)) if len(terms) > 1 else terms[0]
