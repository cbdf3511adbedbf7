"""What a reader sees in PostgreSQL while others write."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.util import await_only

from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.storage.opening import open_storage
from casekeeper.storage.sql.statements import Tx
from tests.contract.shelf import Shelf


@pytest.mark.parametrize("way", ["point", "scan"])
async def test_all_statements_of_a_read_see_one_state(database: str, tmp_path: Path, way: str):
    async with open_storage(database, tmp_path, lambda _: None) as storage:
        shelf, store = await Shelf.filled(storage), storage.commits

        def read(tx: Tx) -> tuple[int, int]:
            def count() -> int:
                return tx.text("SELECT count(*) FROM events")[0][0]

            before = count()
            await_only(shelf.commit(Commit((shelf.fact(Kind.DENIED),))))
            return before, count()

        ask: Any = getattr(store, way)
        # The first time the store does not know yet that it takes two statements.
        seen = [await ask(read) for _ in range(3)]

    assert [before for before, _ in seen] == [after for _, after in seen]
    assert seen[0] < seen[1] < seen[2]
