"""The client of Firestore: a few gRPC channels, a deadline on every call, errors translated into casekeeper's."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import cycle
from time import monotonic
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from casekeeper.errors import StoreUnavailable
from casekeeper.storage.firestore import messages as v
from casekeeper.storage.firestore.messages import Made, Query, StoredDocument, Write

HOST = "firestore.googleapis.com"
# The largest answer is a page of events of 256 KiB each.
_MESSAGE_BYTES = 64 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # gRPC waits up to two minutes before it tries again; a store that is back must be used at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    # Channels to one address share a connection otherwise, and with it the limit of about 100 calls at a time.
    ("grpc.use_local_subchannel_pool", 1),
)
_CALL_S = 10.0
# How long a failing read is retried before the caller gets a 503.
_RETRY_S = 1.0
_PATHS_MAX = 300
_NOWHERE = "store/now"

_CODE: Any = grpc.StatusCode
_CONFLICTS = (_CODE.ALREADY_EXISTS, _CODE.FAILED_PRECONDITION, _CODE.NOT_FOUND, _CODE.ABORTED)
_REJECTED = (_CODE.INVALID_ARGUMENT, _CODE.OUT_OF_RANGE)


_log = logging.getLogger("casekeeper.firestore")


class CommitConflict(Exception):
    """What a commit relied on has changed; nothing was written."""


class Rejected(Exception):
    """Firestore does not take this write, however often it is tried."""


class Firestore:
    """Reads and commits in one database."""

    def __init__(self, channels: Sequence[Any], database: str, *, token: str | None = None) -> None:
        self._database = database
        self._root = f"{database}/documents/"
        self._channels = cycle([_Calls(channel) for channel in channels])
        metadata = [
            ("google-cloud-resource-prefix", database),
            ("x-goog-request-params", f"database={quote(database, safe='')}"),
        ]
        self._metadata = tuple([*metadata, ("authorization", f"Bearer {token}")] if token else metadata)

    async def get(self, paths: Iterable[str], *, consistent: bool = False) -> dict[str, StoredDocument]:
        """The documents of these paths that exist; `consistent`: all as of one instant.

        Raises:
            StoreUnavailable: It does not answer.
        """
        wanted = list(dict.fromkeys(paths))
        parts = [wanted[at : at + _PATHS_MAX] for at in range(0, len(wanted), _PATHS_MAX)]
        found = await asyncio.gather(*(self._get(part, consistent) for part in parts))
        return {document.path: document for part in found for document in part}

    async def one(self, path: str) -> StoredDocument | None:
        """A single document."""
        return (await self.get([path])).get(path)

    async def now(self) -> datetime:
        """What Firestore's clock says: a read is stamped with it, be there a document or not."""
        request = v.get_request(self._database, self._root, [_NOWHERE], consistent=False)
        [answer] = await self._read("get", request)
        return answer.read_time.ToDatetime(UTC)

    async def query(self, wanted: Query) -> list[StoredDocument]:
        """What a query finds.

        Raises:
            StoreUnavailable: It does not answer.
        """
        return (await self.query_at(wanted))[0]

    async def query_at(self, wanted: Query) -> tuple[list[StoredDocument], int]:
        """What a query finds, and its `read_time` in microseconds since 1970.

        It sees every commit up to that time (google.firestore.v1 CommitResponse.commit_time).

        Raises:
            StoreUnavailable: It does not answer.
        """
        # The emulator asks for no indexes, so tests look here for what firestore.indexes.json has to hold.
        _log.debug("query", extra={"query": wanted})
        request = v.query_request(self._root, wanted)
        answers = await self._read("query", request)
        found = [v.document_of(self._root, a.document) for a in answers if a.HasField("document")]
        # Where nothing is found, one answer carries the time alone.
        return found, answers[0].read_time.ToMicroseconds()

    async def commit(self, writes: Sequence[Write]) -> Made:
        """Make these changes, all or none.

        Raises:
            Conflict: A document has another version; nothing was written.
            Rejected: It takes no such write.
            StoreUnavailable: It does not answer; whether anything was written is not known.
        """
        request = v.commit_request(self._database, self._root, writes)
        try:
            answer = await next(self._channels).commit(request, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code in _CONFLICTS:
                raise CommitConflict(error.details()) from error
            if code in _REJECTED:
                raise Rejected(error.details()) from error
            raise StoreUnavailable(f"Firestore does not answer: {code.name.lower()}.") from error
        return v.made_of(answer)

    async def _get(self, paths: Sequence[str], consistent: bool) -> list[StoredDocument]:
        request = v.get_request(self._database, self._root, paths, consistent=consistent)
        answers = await self._read("get", request)
        return [v.document_of(self._root, a.found) for a in answers if a.HasField("found")]

    async def _read(self, call: str, request: Any) -> list[Any]:
        ends = monotonic() + _RETRY_S
        while True:
            try:
                stub = getattr(next(self._channels), call)
                answers = [a async for a in stub(request, metadata=self._metadata, timeout=_CALL_S)]
            except grpc.aio.AioRpcError as error:
                if error.code() in _REJECTED:
                    raise Rejected(error.details()) from error
                if monotonic() >= ends:
                    name = error.code().name.lower()
                    raise StoreUnavailable(f"Firestore does not answer: {name}.") from error
            else:
                # Tests count them.
                _log.debug("read", extra={"answers": answers})
                return answers
            await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - spreads out who tries again


class _Calls:
    """The calls of one channel."""

    def __init__(self, channel: Any) -> None:
        service = "/google.firestore.v1.Firestore/"
        self.commit = channel.unary_unary(
            f"{service}Commit",
            request_serializer=v.CommitRequest.SerializeToString,
            response_deserializer=v.CommitAnswer.FromString,
        )
        self.get = channel.unary_stream(
            f"{service}BatchGetDocuments",
            request_serializer=v.GetDocuments.SerializeToString,
            response_deserializer=v.GetDocumentsAnswer.FromString,
        )
        self.query = channel.unary_stream(
            f"{service}RunQuery",
            request_serializer=v.RunQuery.SerializeToString,
            response_deserializer=v.RunQueryAnswer.FromString,
        )


@asynccontextmanager
async def open_channels(count: int, emulator: str | None) -> AsyncGenerator[list[Any]]:
    """Channels to Firestore with the machine's credentials, or to an emulator (`host:port`) without any."""
    if emulator:
        channels: list[Any] = [grpc.aio.insecure_channel(emulator, options=_OPTIONS) for _ in range(count)]
    else:
        transport: Any = FirestoreGrpcAsyncIOTransport
        try:
            channels = [transport.create_channel(HOST, options=_OPTIONS) for _ in range(count)]
        except GoogleAuthError as error:
            raise StoreUnavailable(
                "Firestore needs credentials: run `gcloud auth application-default login`, or name a service account's "
                "file in GOOGLE_APPLICATION_CREDENTIALS."
            ) from error
    try:
        yield channels
    finally:
        for channel in channels:
            await channel.close()
