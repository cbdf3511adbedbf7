"""The load generator: a process of its own, bare asyncio sockets, keep-alive, requests built before the clock starts.

Reads one JSON job from standard input, prints one JSON result. Each client sends, waits for the whole answer, and
sends again; nothing is parsed but status and length. It must never be what is measured: it answers for a small
fraction of the time of the fastest server here.
"""

import asyncio
import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast

MARK = b"@@@@@@@@@@@@@@@@"
"""Where a request gets a number of its own, of the same length."""


@dataclass
class Job:
    """What to send. `requests` are latin-1 text; client n uses the n-th, or all in turn with `rotate`."""

    port: int
    requests: list[str]
    clients: int
    seconds: float = 1.0
    count: int = 0
    warm_seconds: float = 0.2
    rotate: bool = False
    label: str = ""


@dataclass
class Result:
    """How it went. Latencies in microseconds, sorted."""

    done: int = 0
    seconds: float = 0.0
    errors: int = 0
    first_error: str = ""
    latencies_us: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.done / self.seconds if self.seconds else 0.0

    def percentile_ms(self, part: float) -> float:
        """A percentile of the latencies."""
        if not self.latencies_us:
            return float("nan")
        return self.latencies_us[min(len(self.latencies_us) - 1, int(part * len(self.latencies_us)))] / 1000


class _Run:
    """Shared by the clients of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.result = Result()
        self.numbers = itertools.count(time.time_ns() % 10**15)
        self.starts = self.ends = 0.0
        self.sent = 0

    def wants_more(self, now: float) -> bool:
        """Whether a client that is free should send again."""
        if self.job.count:
            return self.sent < self.job.count
        return now < self.ends


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run, number: int, over: "asyncio.Future[None]") -> None:
        self._run = run
        self._over = over
        texts = run.job.requests if run.job.rotate else [run.job.requests[number % len(run.job.requests)]]
        self._requests = itertools.cycle([text.encode("latin-1").split(MARK) for text in texts])
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport writes, but is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.find(b"ontent-length: ", 0, end)
        length = int(self._buffer[at + 15 : self._buffer.index(b"\r", at)]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        answer, self._buffer = self._buffer, b""
        now = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 20"):
            self._run.result.errors += 1
            self._run.result.first_error = self._run.result.first_error or answer[:600].decode("latin-1")
        elif self._run.job.count or self._run.starts <= now <= self._run.ends:
            self._run.result.latencies_us.append((now - self._sent_at) * 1e6)
        if self._run.wants_more(now) and self._run.result.errors < 20:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._run.result.errors += 1
            self._run.result.first_error = self._run.result.first_error or repr(exc)
        if not self._over.done():
            self._over.set_result(None)

    def _send(self) -> None:
        self._run.sent += 1
        parts = next(self._requests)
        data = (b"%016d" % next(self._run.numbers)).join(parts) if len(parts) > 1 else parts[0]
        self._sent_at = time.perf_counter()
        self._transport.write(data)


async def run(job: Job) -> Result:
    """Do one job."""
    loop, state = asyncio.get_running_loop(), _Run(job)
    began = time.perf_counter()
    state.starts = began + (0 if job.count else job.warm_seconds)
    state.ends = state.starts + job.seconds
    overs: list[asyncio.Future[None]] = []
    for number in range(job.clients):
        over: asyncio.Future[None] = loop.create_future()
        overs.append(over)
        await loop.create_connection(
            lambda number=number, over=over: _Client(state, number, over), "127.0.0.1", job.port
        )
    await asyncio.gather(*overs)
    result = state.result
    result.latencies_us.sort()
    result.done = len(result.latencies_us)
    result.seconds = time.perf_counter() - began if job.count else job.seconds
    return result


def main() -> None:
    """Jobs from standard input, one a line, until it ends; a result a line to standard output."""
    import uvloop

    for line in sys.stdin:
        result = uvloop.run(run(Job(**json.loads(line))))
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
