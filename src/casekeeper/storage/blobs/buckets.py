"""Buckets: their addresses, and the check that they can be used."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qs

import obstore
from obstore.exceptions import BaseError
from obstore.store import GCSStore, ObjectStore, S3Store

from casekeeper.errors import SettingsInvalid, StoreUnavailable
from casekeeper.storage.options import StoreLimits
from casekeeper.values import value

_RETRIES = 3
# A casefile's name has no dot.
_MARKER = "casekeeper.txt"
_STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore}

# Its type is not wholly known.
_obstore: Any = obstore
listed = _obstore.list


@value
class Bucket:
    """A bucket, and what errors call it."""

    name: str
    store: ObjectStore
    deadline_s: float


def bucket_at(parts: SplitResult, limits: StoreLimits) -> Bucket:
    """The bucket at `s3://bucket[/prefix][?endpoint_url=…&region=…]` or `gs://bucket[/prefix][?endpoint_url=…]`.

    Credentials come from the environment, as the services' own tools have them. Nothing is asked yet.

    Raises:
        SettingsInvalid: The library takes no such address.
    """
    options: dict[str, Any] = {
        name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()
    }
    endpoint = options.pop("endpoint_url", None)
    if endpoint:
        # Other services that speak S3 want credentials; what answers for Google elsewhere is an emulator.
        is_s3 = parts.scheme == "s3"
        options |= {"endpoint": endpoint} if is_s3 else {"service_account_key": _emulated(endpoint)}
    deadline = limits.statement
    common: dict[str, Any] = {
        "prefix": parts.path.strip("/") or None,
        "client_options": {
            "connect_timeout": limits.connect,
            "timeout": deadline,
            # Only for an address that says so itself: everything else is encrypted on its way.
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
        },
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": deadline,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    }
    try:
        store: ObjectStore = _STORES[parts.scheme](parts.netloc, **options, **common)
    except (BaseError, ValueError) as error:
        raise SettingsInvalid(f"CASEKEEPER_BLOBS: {told(error)}") from error
    return Bucket(f"{parts.scheme}://{parts.netloc}", store, deadline.total_seconds())


async def must_be_usable(bucket: Bucket) -> None:
    """Write a marker and list it, which shows whether the bucket is there and these credentials are enough.

    Raises:
        StoreUnavailable: They are not, or nobody answers; the detail says in one line what is wrong.
    """
    try:
        async with asyncio.timeout(bucket.deadline_s):
            marker = (
                b"Blobs of one casekeeper deployment. Whatever else is put below this prefix may be erased.\n"
            )
            await obstore.put_async(bucket.store, _MARKER, marker, use_multipart=False)
            async for _ in listed(bucket.store, chunk_size=1):
                break
    except FileNotFoundError as error:
        raise StoreUnavailable(f"CASEKEEPER_BLOBS: there is no bucket {bucket.name}.") from error
    except TimeoutError as error:
        raise StoreUnavailable(
            f"CASEKEEPER_BLOBS: {bucket.name} does not answer within {bucket.deadline_s:g} s."
        ) from error
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"CASEKEEPER_BLOBS: {bucket.name} cannot be used: {told(error)}") from error


def _emulated(url: str) -> str:
    """A key with which nobody is asked for a token."""
    nothing = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return json.dumps({"gcs_base_url": url, "disable_oauth": True, **nothing})


def told(error: Exception) -> str:
    """What the library says, as one short line: the rest is the service's answer."""
    return " ".join(str(error).split("\n\nDebug source", 1)[0].split())[:300]
