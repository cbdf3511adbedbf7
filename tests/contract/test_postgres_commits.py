"""What a commit costs on PostgreSQL, and whom it wakes."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import Change
from casekeeper.storage.opening import open_storage
from tests.contract.shelf import GUEST, Shelf

pytestmark = pytest.mark.timeout(120)


async def test_a_commit_that_changes_no_permission_tells_of_no_change(database: str, tmp_path: Path):
    told: list[Sequence[Change]] = []
    async with open_storage(database, tmp_path, lambda _: None, told.append, heard=lambda _: None) as store:
        shelf = await Shelf.filled(store)
        told.clear()
        await shelf.operation()
        await shelf.grant(GUEST, Role.EDITOR)

    assert [[change.user_id for change in changes] for changes in told] == [[GUEST]]
