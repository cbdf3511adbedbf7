"""Where blobs can be, each kind with nothing in it, and a look behind the scenes."""

import secrets
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import connect
from urllib.parse import urlsplit

import httpx2
import pytest

from casekeeper.documents.blobs import BlobStore
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from tests.fakes.firestore import Emulator
from tests.fakes.objects import CREDENTIALS, Objects
from tests.fakes.postgres import Postgres, selected

PLACES = ("directory", "sqlite", "postgresql", "firestore", "s3", "gs")

_CONTENTS = (
    "SELECT content_id FROM blob_parts UNION SELECT content_id FROM blobs "
    "UNION SELECT content_id FROM blob_leftovers"
)


@dataclass(frozen=True)
class Place:
    """A blob store."""

    blobs: BlobStore
    contents: Callable[[], Awaitable[int]]
    """How many blobs it has bytes of, also of those that nobody can read."""
    leaves: int
    """How many leftovers of a put that never ends there are to sweep."""


@asynccontextmanager
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    """The place of a parametrized test, on a store that it may be part of."""
    kind: str = request.param
    data = tmp_path / "data"
    migrated: Path = request.getfixturevalue("migrated")
    shutil.copytree(migrated, data)
    address, blobs, leaves = "", "database", 1
    if kind == "directory":
        blobs = str(tmp_path / "large")

        async def contents() -> int:
            return sum(1 for path in (tmp_path / "large").rglob("*") if path.is_file())

    elif kind == "sqlite":

        async def contents() -> int:
            with closing(connect(data / "casekeeper.db")) as connection:
                return len(connection.execute(_CONTENTS).fetchall())

    elif kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        address = await server.migrated()

        async def contents() -> int:
            return len(await selected(address, _CONTENTS))

    elif kind == "firestore":
        emulator: Emulator = request.getfixturevalue("emulator")
        address = emulator.address()
        shutil.copy(data / "casekeeper.db", data / "search.db")

        async def contents() -> int:
            return len(_firestore_contents(address))

    else:
        objects: Objects = request.getfixturevalue("objects")
        # Google's client writes a hyphen as %2D, which S3 does not know in the name of a bucket.
        bucket = f"bucket{secrets.token_hex(6)}"
        objects.make(bucket)
        blobs, leaves = objects.address(kind, f"{bucket}/of/this/one"), 0
        patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)

        async def contents() -> int:
            keys = [*objects.keys(bucket), *objects.unfinished(bucket)]
            assert all(key.startswith("of/this/one/") for key in keys)
            return len(keys) - 1  # the marker

    async with open_storage(address, data, lambda _: None, limits=StoreLimits(blobs=blobs)) as storage:
        yield Place(storage.blobs, contents, leaves)
    if kind == "postgresql":
        await request.getfixturevalue("postgres").drop(address)


def _firestore_contents(address: str) -> set[str]:
    parts = urlsplit(address)
    root = f"http://{parts.query.removeprefix('emulator=')}/v1/projects/{parts.netloc}/databases/(default)"
    found: set[str] = set()
    for collection in ("chunks", "blobs", "blob_leftovers"):
        asked = {
            "from": [{"collectionId": collection, "allDescendants": True}],
            "select": {"fields": [{"fieldPath": "content_id"}]},
        }
        answers = httpx2.post(
            f"{root}/documents:runQuery", json={"structuredQuery": asked}, timeout=30
        ).json()
        for document in (answer["document"] for answer in answers if "document" in answer):
            named = document.get("fields", {}).get("content_id", {}).get("stringValue")
            found.add(named or document["name"].rpartition("/")[2])
    return found
