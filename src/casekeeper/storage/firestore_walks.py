"""Long reads from Firestore: query after query as one walk in order, with what the queries cannot say judged here."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from casekeeper.storage.firestore_channels import Firestore
from casekeeper.storage.firestore_values import Document, Fields, Query

IN_MAX = 30
"""An `in` takes so many values at most."""


def chunks(values: Sequence[str]) -> list[list[str]]:
    """Values for as many `in` filters as they need."""
    return [list(values[start : start + IN_MAX]) for start in range(0, len(values), IN_MAX)]


async def all_of(store: Firestore, wanted: Query, page: int) -> AsyncGenerator[Document]:
    """All documents of a query, a page at a time; it must be ordered by what no two of them share."""
    wanted = replace(wanted, limit=page)
    while True:
        found = await store.query(wanted)
        for document in found:
            yield document
        if len(found) < page:
            return
        last = found[-1].fields
        wanted = replace(wanted, after=tuple(last[name] for name, _ in wanted.order))


async def walk(
    store: Firestore,
    queries: Sequence[Query],
    accept: Callable[[Fields], Awaitable[bool]],
    limit: int,
) -> list[Document]:
    """The first documents of several queries with one order that are accepted, each once."""
    walks = [all_of(store, wanted, max(limit, 10)) for wanted in queries]
    heads: list[tuple[Document, AsyncGenerator[Document]]] = []
    taken: dict[str, Document] = {}
    for one in walks:
        if (first := await anext(one, None)) is not None:
            heads.append((first, one))
    order = queries[0].order if queries else ()
    newest_first = bool(order) and order[0][1] == "desc"

    def keys(head: tuple[Document, Any]) -> tuple[Any, ...]:
        return tuple(head[0].fields[name] for name, _ in order)

    while heads and len(taken) < limit:
        place = (max if newest_first else min)(range(len(heads)), key=lambda n: keys(heads[n]))
        document, source = heads[place]
        if document.path not in taken and await accept(document.fields):
            taken[document.path] = document
        following = await anext(source, None)
        if following is None:
            heads.pop(place)
        else:
            heads[place] = (following, source)
    for one in walks:
        await one.aclose()
    return list(taken.values())
