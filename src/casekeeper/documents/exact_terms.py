"""Exact terms: labels, message ids, kinds and the like as single words of the full-text index.

They must match as a whole, which words in a text cannot promise. Each becomes one word, a letter for its kind and a digest
of its value, so every store finds it with the index that it has for words. In the index they are called marks.
"""

import hashlib
import re
from typing import Final

from casekeeper.documents.document import Document

LABEL, HAS, KIND, LIST = "label", "has", "kind", "list"
ID, REFERENCE, THREAD = "id", "reference", "thread"

_LETTERS: Final = {LABEL: "l", HAS: "h", KIND: "k", ID: "i", REFERENCE: "r", THREAD: "t", LIST: "m"}
_BETWEEN = re.compile(r"[\W_]+")
# What Gmail makes itself, and Google Takeout writes among the labels; all others are the user's.
_SYSTEM_LABELS: Final = frozenset(
    [
        "inbox",
        "sent",
        "unread",
        "opened",
        "important",
        "starred",
        "trash",
        "spam",
        "archived",
        "draft",
        "drafts",
        "chat",
        "chats",
        "snoozed",
        "muted",
        "scheduled",
        "category-personal",
        "category-social",
        "category-promotions",
        "category-updates",
        "category-forums",
        "category-purchases",
        "category-reservations",
        "category-travel",
    ]
)


def label_key(label: str) -> str:
    """A label as a query names it: lower case, a hyphen for whatever is neither letter nor digit (as in Gmail)."""
    return _BETWEEN.sub("-", label.casefold()).strip("-")


def is_users_label(label: str) -> bool:
    """Whether a user made the label, not Gmail."""
    return label_key(label) not in _SYSTEM_LABELS


def exact_term(kind: str, value: str) -> str:
    """The index word for a value; the same for every spelling that means the same."""
    value = label_key(value) if kind == LABEL else value.casefold().strip("<> ")
    digest = hashlib.sha256(f"{kind} {value}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_LETTERS[kind]}{digest[:20]}"


def exact_terms_of(document: Document) -> list[str]:
    """The exact terms of a document, each once."""
    found = [exact_term(KIND, document.kind), *(exact_term(LABEL, label) for label in document.labels)]
    if any(is_users_label(label) for label in document.labels):
        found.append(exact_term(HAS, "userlabels"))
    if document.kind == "mail" and document.filenames:
        found.append(exact_term(HAS, "attachment"))
    if document.message_id:
        found.append(exact_term(ID, document.message_id))
    if document.thread_id:
        found.append(exact_term(THREAD, document.thread_id))
    found += [exact_term(REFERENCE, reference) for reference in document.references]
    found += [exact_term(LIST, name) for name in document.metadata.get("lists", ())]
    return list(dict.fromkeys(found))
