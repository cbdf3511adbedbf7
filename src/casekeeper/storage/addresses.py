"""Checks the addresses in the settings: of the store, blobs and Redis. Opens nothing and loads no library."""

import re
from importlib.util import find_spec
from urllib.parse import SplitResult, parse_qs, urlsplit

from casekeeper.errors import PackageUnusable, SettingsInvalid
from casekeeper.storage.redis_address import check

_EMULATOR = re.compile(r"(emulator=[^:&]+:[0-9]+)?")
_BUCKET_OPTIONS = {"s3": {"endpoint_url", "region"}, "gs": {"endpoint_url"}}


def store_parts(address: str) -> SplitResult:
    """The parts of a store's address; the scheme is empty, `sqlite`, `postgresql` or `firestore`.

    Raises:
        SettingsInvalid: It names no store that there could be. The message repeats no password.
        PackageUnusable: A library for it is not installed.
    """
    try:
        parts = urlsplit(address)
        has_port = parts.port is not None
    except ValueError as error:
        # Not its own words, which may hold the password.
        raise _store("its host or port cannot be read") from error
    match parts.scheme:
        case "":
            if address:
                raise _store(f"“{address}” has no scheme; write sqlite:///{address}")
        case "sqlite":
            if parts.netloc or not parts.path.strip("/"):
                raise _store("it must be sqlite:///path of a directory")
        case "postgresql" | "postgres":
            _need("PostgreSQL", "asyncpg", "postgres")
            return parts._replace(scheme="postgresql")
        case "firestore":
            if not parts.netloc or has_port or parts.path.count("/") > 1:
                raise _store("it must be firestore://project[/database]")
            # A slip of the pen must not lead from the emulator to what is real.
            if not _EMULATOR.fullmatch(parts.query):
                raise _store("behind a ? it may only say emulator=host:port")
            _need("Firestore", "google.cloud.firestore_v1", "firestore")
        case scheme:
            raise _store(f"the scheme “{scheme}” is not known; sqlite, postgresql and firestore are")
    return parts


def bucket_parts(address: str) -> SplitResult | None:
    """The parts of the address of blobs in a bucket; None where it is a directory's, or says `database`.

    Raises:
        SettingsInvalid: It names no place for blobs that there could be.
        PackageUnusable: The library for it is not installed.
    """
    scheme, colon, _ = address.partition(":")
    if not colon or "/" in scheme:
        return None
    if scheme not in _BUCKET_OPTIONS or not address.startswith(f"{scheme}://"):
        raise _blobs(f"“{address}” is none of: a directory, database, s3://bucket/prefix, gs://bucket/prefix")
    parts = urlsplit(address)
    if unknown := sorted(parse_qs(parts.query, keep_blank_values=True).keys() - _BUCKET_OPTIONS[scheme]):
        raise _blobs(f"{scheme}:// takes no option {', '.join(unknown)}")
    if not parts.netloc or set(parts.netloc) & set("@:"):
        raise _blobs(
            f"it must be {scheme}://bucket or {scheme}://bucket/prefix; credentials come from the environment"
        )
    _need("A bucket for blobs", "obstore", "blobs")
    return parts


def check_redis(address: str) -> None:
    """Nothing, where there may be a Redis at this address.

    Raises:
        SettingsInvalid: It is no address of one, or a file that it names cannot be used. The message repeats no password.
        PackageUnusable: The library for it is not installed.
    """
    try:
        check(address)
    except OSError as error:
        raise SettingsInvalid(
            f"CASEKEEPER_REDIS: it names the file {error.filename}, which cannot be used."
        ) from error
    except ValueError as error:
        raise SettingsInvalid(
            "CASEKEEPER_REDIS: it must be redis://[user:password@]host[:port][/database], or "
            "rediss://…[?ssl_ca_certs=file]."
        ) from error
    _need("CASEKEEPER_REDIS", "redis", "redis")


def _store(what: str) -> SettingsInvalid:
    return SettingsInvalid(f"CASEKEEPER_STORE: {what}.")


def _blobs(what: str) -> SettingsInvalid:
    return SettingsInvalid(f"CASEKEEPER_BLOBS: {what}.")


def _need(what: str, module: str, extra: str) -> None:
    try:
        is_there = find_spec(module) is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise PackageUnusable(f"{what} needs {module}: pip install 'casekeeper[{extra}]'.")
