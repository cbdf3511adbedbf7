"""Checks that the raw bytes of filed documents are unchanged."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from casekeeper.clock import to_us
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.document import DocumentStore, DocumentSummary

Condition = Literal["whole", "missing", "changed"]

_PAGE = 200


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
        digest = hashlib.sha256(raw).hexdigest() if raw is not None else await _digest(blobs, document)
    except FileNotFoundError:
        # Unless it was deleted meanwhile.
        there = await store.document(document.casefile_id, document.document_id)
        return "missing" if there else "whole"
    return "whole" if digest == document.sha256 else "changed"


async def _digest(blobs: BlobStore, document: DocumentSummary) -> str:
    digest = hashlib.sha256()
    async with aclosing(await blobs.stream(document.casefile_id, document.document_id)) as pieces:
        async for piece in pieces:
            digest.update(piece)
    return digest.hexdigest()
