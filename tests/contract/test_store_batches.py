"""Commits that a store makes together see what those before them have written."""

import asyncio

import pytest

from casekeeper.casefiles.casefile import CasefileIsActive, DeleteCasefile, PutCasefile, Status
from casekeeper.errors import CasefileArchived, CasefileNotFound
from casekeeper.journal.commits import Commit, Record
from tests.contract.shelf import NOW, Shelf

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("ends", ["archived", "deleted"])
async def test_a_casefile_is_not_active_behind_a_commit_that_ends_it(shelf: Shelf, ends: str):
    casefile = await shelf.storage.casefiles.casefile(shelf.casefile_id)
    assert casefile
    archived = PutCasefile(casefile.model_copy(update={"status": Status.ARCHIVED}))
    ending: Record = archived if ends == "archived" else DeleteCasefile(shelf.casefile_id, NOW)
    active = CasefileIsActive(shelf.casefile_id)

    results = await asyncio.gather(
        shelf.commit(Commit(conditions=(active,))),
        shelf.commit(Commit(records=(ending,))),
        shelf.commit(Commit(conditions=(active,))),
        return_exceptions=True,
    )

    refused = CasefileArchived if ends == "archived" else CasefileNotFound
    assert [type(result) for result in results] == [list, list, refused]
