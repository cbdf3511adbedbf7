"""Values too large for one document of Firestore, split into several."""

import json
import zlib
from collections.abc import Iterator

from casekeeper.documents.document import Document
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Write

INLINE_BYTES = 256 * 1024
"""Larger bodies are kept in chunks: a document has at most 1 MiB."""
_CHUNK_BYTES = 900_000


def chunks_of(data: bytes) -> int:
    """How many pieces it takes."""
    return sum(1 for _ in _pieces(data))


async def put_chunks(store: Firestore, casefile_id: str, name: str, data: bytes) -> None:
    """Write the pieces; what refers to them is written afterwards. Without it they are erased with the casefile."""
    for number, piece in enumerate(_pieces(data)):
        await store.commit([Write(at.chunk(casefile_id, name, number), None, {"data": piece}, is_blind=True)])


async def chunked(store: Firestore, casefile_id: str, name: str, count: int) -> bytes:
    """Something large, put together from its chunks."""
    paths = [at.chunk(casefile_id, name, number) for number in range(count)]
    found = await store.get(paths)
    return zlib.decompress(b"".join(found[path].fields["data"] for path in paths))


async def whole(store: Firestore, row: Fields) -> Document:
    """A document with its text, out of its fields."""
    name = f"{row['document_id']}-text"
    text = await chunked(store, row["casefile_id"], name, row["text_chunks"])
    return Document(**json.loads(row["summary"]), text=text.decode("utf-8", "surrogatepass"))


def _pieces(data: bytes) -> Iterator[bytes]:
    packed = zlib.compress(data, 1)
    for start in range(0, len(packed), _CHUNK_BYTES):
        yield packed[start : start + _CHUNK_BYTES]
