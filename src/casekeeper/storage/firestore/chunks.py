"""What is too large for one document of Firestore, in pieces."""

from casekeeper.documents.document import Document
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Fields, Write
from casekeeper.storage.firestore.rows import document_of, joined, pieces


async def put_chunks(store: Firestore, casefile_id: str, name: str, data: bytes) -> None:
    """Write the pieces; what refers to them is written afterwards. Without it they are erased with the casefile."""
    for number, piece in enumerate(pieces(data)):
        await store.commit([Write(at.chunk(casefile_id, name, number), None, {"data": piece}, is_blind=True)])


async def whole(store: Firestore, row: Fields) -> Document:
    """A document with its text."""
    name = f"{row['document_id']}-text"
    return document_of(row, await chunked(store, row["casefile_id"], name, row["text_chunks"]))


async def chunked(store: Firestore, casefile_id: str, name: str, count: int) -> bytes:
    """Something large, put together from its chunks."""
    paths = [at.chunk(casefile_id, name, number) for number in range(count)]
    found = await store.get(paths)
    return joined([found[path].fields["data"] for path in paths])
