"""Checks the address of a Redis more strictly than its library, which ignores some mistakes and finds others only later."""

import re
import ssl
from errno import EINVAL
from urllib.parse import parse_qsl, urlsplit

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_DATABASE = re.compile(r"/?|/[0-9]+")


def check(address: str) -> None:
    """Nothing, where there may be a Redis at this address.

    Raises:
        ValueError: It is no address of one. The message does not repeat it: it may hold a password.
        OSError: A file that it names cannot be used; `filename` says which.
    """
    parts = urlsplit(address)
    asked = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    known = _FILES if parts.scheme == "rediss" else ()
    is_one = (
        parts.scheme in ("redis", "rediss") and bool(parts.hostname) and (parts.port is None or parts.port)
    )
    if not is_one or not _DATABASE.fullmatch(parts.path) or any(name not in known for name, _ in asked):
        raise ValueError("no address of a Redis")
    for name, path in asked:
        with open(path, "rb"):
            pass
        if name == "ssl_ca_certs":
            try:
                ssl.create_default_context(cafile=path)
            except ssl.SSLError as error:
                raise OSError(EINVAL, "no certificates", path) from error
