"""Opens the blob store that an address names."""

from pathlib import Path

from casekeeper.documents.blobs import BlobStore
from casekeeper.errors import SettingsInvalid
from casekeeper.storage.addresses import bucket_parts
from casekeeper.storage.blobs.database import DatabaseBlobs, Parts
from casekeeper.storage.blobs.directory import DirectoryBlobs
from casekeeper.storage.options import StoreLimits


async def open_blobs(limits: StoreLimits, directory: Path, parts: Parts, *, tried: bool = True) -> BlobStore:
    """The blob store of these limits: a directory, `database` (the store's own `parts`), `s3://…` or `gs://…`.

    `directory` is the data directory, where blobs are if nothing is said. An object store is tried first, unless it is
    only to be read.

    Raises:
        SettingsInvalid: There is no such blob store, or its directory cannot be made.
        PackageUnusable: Its library is missing.
        StoreUnavailable: It does not answer, has no such bucket or refuses the credentials.
    """
    address, spool = limits.blobs, directory / "spool"
    if address == "database":
        return DatabaseBlobs(parts, spool)
    if bucket_address := bucket_parts(address):
        from casekeeper.storage.blobs.buckets import bucket_at, must_be_usable
        from casekeeper.storage.blobs.object_store import ObjectBlobs

        bucket = bucket_at(bucket_address, limits)
        if tried:
            await must_be_usable(bucket)
        return ObjectBlobs(bucket, spool)
    place = Path(address) if address else directory / "blobs"
    try:
        return DirectoryBlobs(place)
    except OSError as error:
        raise SettingsInvalid(f"CASEKEEPER_BLOBS: {place} cannot be used: {error.strerror}.") from error
