"""Statements that every written row is like: insert, or insert and else replace."""

from datetime import datetime

from sqlalchemy import Table, bindparam, insert
from sqlalchemy.dialects.postgresql import insert as upsert

from casekeeper.clock import to_us
from casekeeper.storage.sql.statements import Static


def us(instant: datetime | None) -> int | None:
    """Microseconds of an instant that may be missing."""
    return None if instant is None else to_us(instant)


def insert_into(table: Table) -> Static:
    """Insert a row with all columns but the number that the database gives."""
    return Static(insert(table).values({c.name: bindparam(c.name) for c in table.c if c.name != "rid"}))


def put_into(table: Table, *keys: str, keep: tuple[str, ...] = ()) -> Static:
    """Insert, or replace all but the keys and what is to be kept."""
    new = upsert(table).values({c.name: bindparam(c.name) for c in table.c if c.name not in keep})
    changed = {c.name: new.excluded[c.name] for c in table.c if c.name not in (*keys, *keep)}
    return Static(new.on_conflict_do_update(index_elements=list(keys), set_=changed))
