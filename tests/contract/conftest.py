"""The stores that the contract is asked of. A further backend adds its name and how it is opened."""

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from casekeeper.storage.embedded import Storage, migrate, open_storage
from tests.contract.shelf import Shelf


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded store at the newest schema; migrating takes longer than most tests."""
    directory = tmp_path_factory.mktemp("migrated") / "data"
    directory.mkdir()
    migrate(directory / "casekeeper.db")
    return directory


@pytest.fixture(params=["sqlite"])
async def storage(tmp_path: Path, migrated: Path) -> AsyncGenerator[Storage]:
    """An empty store of each backend."""
    shutil.copytree(migrated, tmp_path / "data")
    async with open_storage(tmp_path / "data", lambda _: None) as opened:
        yield opened


@pytest.fixture
async def shelf(storage: Storage) -> Shelf:
    """The store with a casefile, its owner and a session in it."""
    return await Shelf.filled(storage)
