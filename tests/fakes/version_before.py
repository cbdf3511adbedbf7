"""Stores as the version before left them (`tests/fixtures/version-0.1`)."""

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import asyncpg

from tests.fakes.firestore import Emulator
from tests.fakes.postgres import Postgres
from tests.support import Json

# It comes without types.
_driver: Any = asyncpg

_FIXTURES = Path(__file__).parents[1] / "fixtures" / "version-0.1"
# Firestore takes at most so many writes at once.
_AT_ONCE = 400


@dataclass(frozen=True)
class Left:
    """A store with its data directory, not migrated yet, and what is known of it."""

    store: str
    data: Path
    story: Json

    @property
    def now(self) -> datetime:
        """When the server of the version before was killed, by its clock."""
        return datetime.fromisoformat(self.story["now"])


def left_on_sqlite(directory: Path) -> Left:
    """An embedded store."""
    return Left("", directory, _unpacked("sqlite", directory))


async def left_on_postgresql(server: Postgres, directory: Path) -> Left:
    """A database of its own."""
    story = _unpacked("postgresql", directory)
    url = await server.make()
    connection = await _driver.connect(url)
    await connection.execute((directory / "dump.sql").read_text())
    await connection.close()
    return Left(url, directory, story)


def left_on_firestore(emulator: Emulator, directory: Path) -> Left:
    """A project of its own."""
    story = _unpacked("firestore", directory)
    address = emulator.address()
    documents: Sequence[Json] = json.loads((directory / "documents.json").read_text())
    database = f"projects/{urlsplit(address).netloc}/databases/(default)"
    for at in range(0, len(documents), _AT_ONCE):
        writes = [
            {"update": {"name": f"{database}/documents/{one['path']}", "fields": one["fields"]}}
            for one in documents[at : at + _AT_ONCE]
        ]
        asking = Request(
            f"http://{emulator.host}/v1/{database}/documents:commit",
            json.dumps({"writes": writes}).encode(),
            {"content-type": "application/json", "authorization": "Bearer owner"},
        )
        urlopen(asking, timeout=60).close()
    return Left(address, directory, story)


def _unpacked(store: str, directory: Path) -> Json:
    with tarfile.open(_FIXTURES / f"{store}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    return json.loads((directory / "story.json").read_text())
