"""Keeps the order of commits on a PostgreSQL server that numbers transactions anew, as after `pg_restore`.

A fact's `rid` begins with the number of its transaction. On a new server these numbers begin small, and new facts would
come before the restored ones.
"""

import secrets
from typing import Any

from casekeeper.storage.sql.schema import PLACE_BITS, postgres_place

_NEXT = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
# Reads the last entry of one index.
_IS_AHEAD = f"SELECT coalesce(max(rid), 0) >= event_place({_NEXT}, 0) FROM events"  # noqa: S608 - names of ours
_BASE = f"SELECT max(rid) + 1 - ({_NEXT} << {PLACE_BITS}) FROM events"  # noqa: S608 - likewise


async def keep_order(pool: Any) -> bool:
    """Make new facts come behind all existing ones; returns whether anything had to be changed.

    If so, the database was restored: a new epoch begins, which ends positions and tokens from before.

    Raises:
        asyncpg.PostgresError, OSError: As the driver does.
    """
    if not await pool.fetchval(_IS_AHEAD):
        return False
    async with pool.acquire() as connection, connection.transaction():
        # Waits for writers, and for other processes that start at the same time.
        await connection.execute("SET LOCAL lock_timeout = 0; LOCK TABLE events IN EXCLUSIVE MODE")
        if not await connection.fetchval(_IS_AHEAD):
            return False
        await connection.execute(postgres_place(await connection.fetchval(_BASE)))
        await connection.execute("UPDATE acl_head SET epoch = $1", secrets.token_hex(8))
        return True
