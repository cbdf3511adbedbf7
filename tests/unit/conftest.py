"""Fixtures of the unit tests: a migrated directory a worker, a copy and a house a test."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.unit.support import House, copy_of, make_template, open_house


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty data directory to copy from."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> Path:
    """A migrated, empty data directory of the test's own."""
    return copy_of(template, tmp_path / "data")


@pytest.fixture
async def house(directory: Path) -> AsyncGenerator[House]:
    """All rooms, on a store of the test's own."""
    async with open_house(directory) as opened:
        yield opened
