"""Whether what was filed is still there, byte by byte."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import closing
from typing import Literal

from casekeeper.clock import to_us
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.document import DocumentStore, DocumentSummary

Condition = Literal["whole", "missing", "changed"]

_PAGE = 200
_CHUNK = 1024 * 1024


async def checked(
    store: DocumentStore, blobs: BlobStore, casefile_id: str
) -> AsyncGenerator[tuple[DocumentSummary, Condition]]:
    """Every document of a casefile, newest filed first, and whether its bytes have the digest that was taken of them."""
    before = None
    while page := await store.documents(casefile_id, None, before, _PAGE):
        before = (to_us(page[-1].created_at), page[-1].document_id)
        for document in page:
            yield document, await _condition(store, blobs, document)


async def _condition(store: DocumentStore, blobs: BlobStore, document: DocumentSummary) -> Condition:
    raw = await store.raw(document.casefile_id, document.document_id)
    try:
        digest = (
            hashlib.sha256(raw).hexdigest()
            if raw is not None
            else await asyncio.to_thread(_digest, blobs, document)
        )
    except FileNotFoundError:
        # Unless it was deleted meanwhile.
        there = await store.document(document.casefile_id, document.document_id)
        return "missing" if there else "whole"
    return "whole" if digest == document.sha256 else "changed"


def _digest(blobs: BlobStore, document: DocumentSummary) -> str:
    digest = hashlib.sha256()
    with closing(blobs.open(document.casefile_id, document.document_id)) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
