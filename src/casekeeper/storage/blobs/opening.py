"""Opens the blob store that an address names."""

from pathlib import Path

from casekeeper.documents.blobs import BlobStore
from casekeeper.storage.addresses import BlobsAddressInvalid
from casekeeper.storage.blobs.database import DatabaseBlobs, Parts
from casekeeper.storage.blobs.directory import DirectoryBlobs
from casekeeper.storage.options import StoreLimits

_SCHEMES = ("s3", "gs")


async def open_blobs(limits: StoreLimits, directory: Path, parts: Parts, *, tried: bool = True) -> BlobStore:
    """The blob store of these limits: a directory, `database` (the store's own `parts`), `s3://…` or `gs://…`.

    `directory` is the data directory, where blobs are if nothing is said. An object store is tried first, unless it is
    only to be read.

    Raises:
        BlobsAddressInvalid: There is no such blob store, its library is missing or its directory cannot be made.
        StoreUnavailable: It does not answer, has no such bucket or refuses the credentials.
    """
    address, spool = limits.blobs, directory / "spool"
    scheme, colon, _ = address.partition(":")
    if address == "database":
        return DatabaseBlobs(parts, spool)
    if colon and "/" not in scheme:
        if not address.startswith(tuple(f"{known}://" for known in _SCHEMES)):
            raise BlobsAddressInvalid(
                f"“{address}” is none of: a directory, database, s3://bucket/prefix, gs://bucket/prefix."
            )
        try:
            from casekeeper.storage.blobs.buckets import bucket_at, must_be_usable
            from casekeeper.storage.blobs.object_store import ObjectBlobs
        except ModuleNotFoundError as error:
            raise BlobsAddressInvalid(
                f"Object stores need {error.name}: pip install 'casekeeper[blobs]'."
            ) from error
        bucket = bucket_at(address, limits)
        if tried:
            await must_be_usable(bucket)
        return ObjectBlobs(bucket, spool)
    place = Path(address) if address else directory / "blobs"
    try:
        return DirectoryBlobs(place)
    except OSError as error:
        raise BlobsAddressInvalid(f"{place} cannot be used: {error.strerror}.") from error
