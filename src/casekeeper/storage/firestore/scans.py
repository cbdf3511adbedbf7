"""Long reads from Firestore: query after query as one walk in order, with what the queries cannot say judged here."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace

from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Query, StoredDocument

# More facts at a time may be more than an answer holds.
_PAGE_MAX = 500
IN_MAX = 30
"""An `in` takes so many values at most."""


def chunks(values: Sequence[str]) -> list[list[str]]:
    """Values for as many `in` filters as they need."""
    return [list(values[start : start + IN_MAX]) for start in range(0, len(values), IN_MAX)]


async def all_of(store: Firestore, wanted: Query, page: int) -> AsyncGenerator[StoredDocument]:
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
    *,
    by: Sequence[str],
) -> list[StoredDocument]:
    """The first documents of several queries that are accepted, each once, ordered by these fields as the queries are."""
    walks = [all_of(store, wanted, min(max(limit, 10), _PAGE_MAX)) for wanted in queries]
    firsts = await asyncio.gather(*(anext(one, None) for one in walks))
    heads = [(first, one) for first, one in zip(firsts, walks, strict=True) if first is not None]
    taken: dict[str, StoredDocument] = {}
    first_of = max if queries and queries[0].order[0][1] == "desc" else min
    while heads and len(taken) < limit:
        place = first_of(range(len(heads)), key=lambda n: tuple(heads[n][0].fields[name] for name in by))
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
