"""What waits in PostgreSQL for what, and what goes on beside it."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.errors import StoreUnavailable
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import ReleaseClaim
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sql.blobs import ForgetBlobs
from tests.contract.holding import holding
from tests.contract.shelf import LATER, Shelf

pytestmark = pytest.mark.timeout(120)

IMPATIENT = StoreLimits(lock=timedelta(milliseconds=200))


async def test_a_record_waits_for_what_it_says_it_is_about(database: str, tmp_path: Path):
    async with open_storage(database, tmp_path, lambda _: None, limits=IMPATIENT) as store:
        shelf = await Shelf.filled(store)
        commits = [
            Commit(records=(record,))
            for record in (
                ForgetBlobs(shelf.casefile_id, None),
                ForgetBlobs("cf_260301_ffffff", None),
                ReleaseClaim("m", LATER),
            )
        ]
        async with holding(database, shelf.casefile_id):
            results = await asyncio.gather(*map(store.commits.commit, commits), return_exceptions=True)

        assert [type(result) for result in results] == [StoreUnavailable, list, list]


async def test_a_blob_is_put_while_another_process_works_in_its_casefile(database: str, tmp_path: Path):
    limits = StoreLimits(lock=timedelta(milliseconds=200), blobs="database")
    async with open_storage(database, tmp_path, lambda _: None, limits=limits) as store:
        shelf = await Shelf.filled(store)
        async with holding(database, shelf.casefile_id, session_id=shelf.session_id):
            await store.blobs.put(shelf.casefile_id, "doc_1", b"bytes")

        assert await store.blobs.get(shelf.casefile_id, "doc_1") == b"bytes"
