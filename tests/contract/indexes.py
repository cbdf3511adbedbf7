"""Which indexes Firestore needs for the queries that the store asks; the emulator answers all of them without any."""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from casekeeper.storage.firestore.messages import Query

FILE = Path(__file__).parents[2] / "firestore.indexes.json"
Index = tuple[str, str, tuple[tuple[str, str], ...]]
"""Collection, scope, fields with their directions."""


def needed(query: Query) -> set[Index]:
    """What must be declared for a query. Firestore joins indexes of one equality each, if they end in the same order."""
    scope = "COLLECTION_GROUP" if query.everywhere else "COLLECTION"
    equal = [name for name, sign, _ in query.where if sign in ("==", "in")]
    order = query.order or tuple((name, "asc") for name, sign, _ in query.where if sign not in ("==", "in"))
    if equal and order:
        fields = [((name, "asc"), *order) for name in equal]
    elif order:
        fields = [order]
    else:
        fields = [((name, "asc"),) for name in equal]
    # Firestore makes indexes of one field by itself, but not across collections of one name.
    return {(query.collection, scope, one) for one in fields if len(one) > 1 or scope == "COLLECTION_GROUP"}


def declared() -> set[Index]:
    """What `firestore.indexes.json` declares."""
    directions = {"ASCENDING": "asc", "DESCENDING": "desc"}
    content = json.loads(FILE.read_text())
    found: set[Index] = set()
    for index in content["indexes"]:
        fields = tuple((field["fieldPath"], directions[field["order"]]) for field in index["fields"])
        found.add((index["collectionGroup"], index["queryScope"], fields))
    for override in content["fieldOverrides"]:
        for index in override["indexes"]:
            if index["queryScope"] == "COLLECTION_GROUP":
                field = (override["fieldPath"], directions[index["order"]])
                found.add((override["collectionGroup"], "COLLECTION_GROUP", (field,)))
    return found


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.needed: set[Index] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if asked := record.__dict__.get("query"):
            self.needed.update(needed(asked))


@contextmanager
def watched_queries() -> Generator[set[Index]]:
    """What the queries asked meanwhile need."""
    log, listener = logging.getLogger("casekeeper.firestore"), _Listener()
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    try:
        yield listener.needed
    finally:
        log.setLevel(level)
        log.removeHandler(listener)
