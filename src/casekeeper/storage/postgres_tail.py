"""Keeps the order of commits where a PostgreSQL server's transactions are numbered anew, as after `pg_restore`.

A fact's `rid` begins with the number of its transaction. A server that has just been made begins with small numbers, so
facts that were written before they came here would be of the future: what is written now has to come behind them.
"""

import secrets
from typing import Any

from casekeeper.storage.sql_ddl import PLACE_BITS, postgres_place

_NEXT = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
# One look at the end of one index.
_IS_AHEAD = f"SELECT coalesce(max(rid), 0) >= event_place({_NEXT}, 0) FROM events"  # noqa: S608 - names of ours
_BASE = f"SELECT max(rid) + 1 - ({_NEXT} << {PLACE_BITS}) FROM events"  # noqa: S608 - likewise


async def keep_order(pool: Any) -> bool:
    """See to it that new facts come behind all that are there; whether there was anything to do.

    If there was, the database was restored, and positions and tokens from before mean nothing here: a new epoch begins.

    Raises what asyncpg does.
    """
    if not await pool.fetchval(_IS_AHEAD):
        return False
    async with pool.acquire() as connection, connection.transaction():
        # Nobody writes facts meanwhile, and of several processes that start at once one does it.
        await connection.execute("SET LOCAL lock_timeout = 0; LOCK TABLE events IN EXCLUSIVE MODE")
        if not await connection.fetchval(_IS_AHEAD):
            return False
        await connection.execute(postgres_place(await connection.fetchval(_BASE)))
        await connection.execute("UPDATE acl_head SET epoch = $1", secrets.token_hex(8))
        return True
