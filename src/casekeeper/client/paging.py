"""Lists that are longer than a page."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from casekeeper.client.connection import Connection

_PAGE = 200


async def each(connection: Connection, verb: str, fields: Mapping[str, Any]) -> AsyncGenerator[Any]:
    """All items of a list, page by page as they are asked for."""
    cursor = None
    while True:
        page = await connection.ask(verb, {**fields, "limit": _PAGE, "cursor": cursor})
        for item in page.items:
            yield item
        if not page.has_more:
            return
        cursor = page.next_cursor
