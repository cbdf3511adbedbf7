"""Another process that has taken locks in PostgreSQL and does not let go of them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from casekeeper.storage.postgres.locks import lock_number

_driver: Any = asyncpg


@asynccontextmanager
async def holding(database: str, *casefile_ids: str, session_id: str = "") -> AsyncGenerator[None]:
    """As if a transaction of another process were at work in these casefiles and did not end.

    `session_id`: it only adds facts to this session of theirs.
    """
    holder = await _driver.connect(database)
    shared = "_shared" if session_id else ""
    for casefile_id in casefile_ids:
        await holder.execute(f"SELECT pg_advisory_lock{shared}($1)", lock_number(f"casefile {casefile_id}"))
    if session_id:
        await holder.execute("SELECT pg_advisory_lock($1)", lock_number(f"session {session_id}"))
    try:
        yield
    finally:
        await holder.close()
