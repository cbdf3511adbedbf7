"""Payloads of operations: inputs, outputs and snapshots, how large they may be, and whether they are stored inline or as blobs."""

import json
from contextlib import suppress
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from casekeeper.documents.blobs import BlobStore
from casekeeper.errors import BodyTooLarge, StoreUnavailable
from casekeeper.execution.runner import Ending
from casekeeper.journal.events import Failure, Kind, Payload, StoredFact
from casekeeper.journal.operations import Snapshot

INLINE_MAX = 256 * 1024
"""Larger payloads are blobs; pages of events carry `{blob,size}` instead."""

TOTAL_MAX = 10 * 1024 * 1024

SNAPSHOT_INLINE_MAX = 32 * 1024
"""Rows of open operations are read with every commit of theirs (Firestore reads them whole), so they stay small."""


class Payloads:
    """Stores values as payloads, inline or as blobs, and reads them back; refuses those that are too large."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def inputs(self, casefile_id: str, inputs: Any, **more: Any) -> Payload:
        """The payload of what was asked.

        Raises:
            BodyTooLarge: More than 10 MiB.
        """
        body = to_json({"inputs": inputs, **more}, inf_nan_mode="null")
        if len(body) > TOTAL_MAX:
            raise BodyTooLarge(f"Inputs take at most {TOTAL_MAX} bytes.")
        return await self._payload(casefile_id, body)

    async def ending(self, casefile_id: str, ending: Ending) -> tuple[Ending, Payload, bytes | None]:
        """The ending, its payload, and the outputs as JSON. What cannot be kept turns success into failure."""
        outputs = None
        if ending.finished is not None:
            try:
                outputs = to_json(ending.finished.outputs, inf_nan_mode="null")
            except (PydanticSerializationError, ValueError, RecursionError) as error:
                ending = _failed(
                    "output_not_json", f"What it returned cannot be written as JSON: {error}"[:500]
                )
            else:
                if len(outputs) > TOTAL_MAX:
                    said = f"It returned {len(outputs)} bytes; at most {TOTAL_MAX} can be kept."
                    ending, outputs = _failed("output_too_large", said), None
        if ending.failure is not None:
            error = ending.failure.model_dump(include={"message", "retryable"})
            return ending, Payload.of_fields(error=error), None
        return ending, await self._payload(casefile_id, b'{"outputs":%s}' % (outputs or b"null")), outputs

    async def snapshot(self, casefile_id: str, name: str, body: bytes, version: int) -> Snapshot:
        """A snapshot as the row of its operation keeps it: inline, or, if it is large, in a blob of this name.

        Raises:
            ValueError: It is no JSON.
            BodyTooLarge: More than 10 MiB.
        """
        if len(body) > TOTAL_MAX:
            raise BodyTooLarge(f"A snapshot takes at most {TOTAL_MAX} bytes.")
        from_json(body)
        if len(body) <= SNAPSHOT_INLINE_MAX:
            return Snapshot(version, body.decode())
        await self._blobs.put(casefile_id, name, body)
        return Snapshot(version, blob=name)

    async def of_snapshot(self, casefile_id: str, snapshot: Snapshot) -> bytes | None:
        """What was kept; None if it is lost."""
        if snapshot.blob is None:
            return (snapshot.body or "").encode()
        return await self._blobs.get(casefile_id, snapshot.blob)

    async def drop_snapshot(self, casefile_id: str, snapshot: Snapshot | None) -> None:
        """Forget a snapshot that is of no use any more; erased with the casefile at the latest."""
        if snapshot is not None and snapshot.blob is not None:
            with suppress(StoreUnavailable):
                await self._blobs.remove(casefile_id, snapshot.blob)

    async def part(self, fact: StoredFact, name: str) -> Any:
        """`inputs`, `outputs` or `error` of a stored fact in full, None where there is none."""
        body = fact.body
        if fact.blob is not None:
            casefile_id = from_json(fact.header)["casefile_id"]
            body = await self._blobs.get(casefile_id, fact.blob)
        return parsed(body).get(name) if body else None

    async def _payload(self, casefile_id: str, body: bytes) -> Payload:
        if len(body) <= INLINE_MAX:
            return Payload.of(body)
        payload = Payload.of(body)
        # Named by its salted commitment: equal payloads stay apart, and each can be erased alone.
        name = payload.commit.hex()
        await self._blobs.put(casefile_id, name, body)
        return Payload(payload.salt, payload.commit, payload.size, None, name)


def parsed(body: bytes) -> Any:
    """Stored JSON as a value. What was written at 255 levels is read at 255, for which the quick parser is too strict."""
    try:
        return from_json(body)
    except ValueError:
        return json.loads(body)


def _failed(type_: str, message: str) -> Ending:
    return Ending(Kind.FAILED, failure=Failure(type=type_, message=message))
