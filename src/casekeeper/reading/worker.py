"""The process that reads untrusted files: `python -m casekeeper.reading.worker SPOOL`.

It takes jobs on its standard input, a socket: a JSON object with the file's descriptor beside it. It answers with
frames: four bytes of length, a JSON header, and the raw bytes, whose number the header says. It imports little, knows
no secret, and can be killed at any moment.
"""

import os
import resource
import socket
import sys
import tempfile
import time
from contextlib import suppress
from typing import IO, Any, Final, cast

import orjson

from casekeeper.reading.archives import Budget
from casekeeper.reading.contents import Contents, Item

MEMORY_BYTES: Final = 1536 * 1024 * 1024
ITEM_CPU_S: Final = 30
IDLE_S: Final = 60
"""Seconds without a job after which it ends by itself."""

_CHUNK: Final = 256 * 1024
_ALLOW_EVERY_S: Final = 1.0
_NAMES: Final = tuple(name for name in Item.__slots__ if name != "raw")


def main() -> None:
    """Work until nobody asks any more."""
    tempfile.tempdir = sys.argv[1]
    _limit()
    with socket.socket(fileno=0) as way:
        while job := _next(way):
            request, descriptor = job
            with os.fdopen(descriptor, "rb") as file, way.makefile("wb", buffering=_CHUNK) as out:
                serve(orjson.loads(request), file, cast("IO[bytes]", out))


def serve(job: dict[str, Any], file: IO[bytes], out: IO[bytes]) -> None:
    """Send every item of a file, then the end."""
    budget = Budget(entry=job["document_bytes"])
    contents = Contents(budget, job["skip"], frozenset(job["as_is"]))
    # The descriptor is shared with whoever read the file before.
    file.seek(0)
    _allow(ITEM_CPU_S)
    allowed_s = time.monotonic()
    for number, item in enumerate(contents.items(file, job["name"], whole=job["whole"])):
        if number >= job["skip"]:
            send(item, out)
            # What is on its way when the next item ends the process would be taken for what ended it.
            out.flush()
        # Of thousands of small items not each: asking the kernel takes as long as reading one.
        if time.monotonic() - allowed_s > _ALLOW_EVERY_S:
            _allow(ITEM_CPU_S)
            allowed_s = time.monotonic()
    _frame(out, {"end": True})
    out.flush()


def send(item: Item, out: IO[bytes]) -> None:
    """One item as a frame."""
    _frame(out, {name: getattr(item, name) for name in _NAMES})
    if isinstance(item.raw, bytes):
        out.write(item.raw)
        return
    item.raw.seek(0)
    left = item.size
    while left and (chunk := item.raw.read(min(left, _CHUNK))):
        out.write(chunk)
        left -= len(chunk)


def _frame(out: IO[bytes], header: dict[str, Any]) -> None:
    data = orjson.dumps(header)
    out.write(len(data).to_bytes(4, "big"))
    out.write(data)


def _next(way: socket.socket) -> tuple[bytes, int] | None:
    way.settimeout(IDLE_S)
    try:
        data, descriptors, _, _ = socket.recv_fds(way, 65536, 1)
    except TimeoutError:
        return None
    way.settimeout(None)
    return (data, descriptors[0]) if data and descriptors else None


def _limit() -> None:
    # Where a limit does not exist, the others and the clock of whoever waits remain.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The server's own work goes first.
    os.nice(5)


def _allow(seconds: int) -> None:
    """Give the next item its time; the kernel ends the process when it is over."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
