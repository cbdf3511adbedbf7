"""Servers as they are deployed: `casekeeper serve` in processes of their own, with a tool that can be held up."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from casekeeper.client import Casekeeper
from tests.journeys import holding
from tests.journeys.support import ROOT, Answer, Json, bearing, envelope, request, tool_call

_WAIT_S = 60


class Deployed:
    """A server, and its operator's token."""

    def __init__(self, process: "asyncio.subprocess.Process", data: Path, lines: list[Any]) -> None:
        self.process = process
        self.data = data
        self.lines = lines
        self.url: str = lines[-1]["url"]
        self.port = int(self.url.rpartition(":")[2])
        self.token = ""

    async def log_in(self, password: str) -> None:
        """Be the operator."""
        login = {"user_id": "operator@localhost", "password": password}
        headers = {"content-type": "application/json"}
        answer = await request(self.port, "POST", "/v1/auth/token", envelope(login), headers)
        self.token = answer.json["payload"]["access_token"]

    async def ask(self, path: str, payload: Json, request_id: str | None = None) -> Answer:
        """A call of the operator's."""
        return await request(self.port, "POST", path, envelope(payload, request_id), bearing(self.token))

    async def casefile(self) -> str:
        """A new casefile's id."""
        made = await self.ask("/v1/casefiles/create", {"title": "Rent dispute"})
        return made.json["payload"]["casefile_id"]

    async def hold(self, casefile_id: str, marks: Path, request_id: str | None = None, **more: Any) -> Answer:
        """Run the tool that is held up."""
        marks.mkdir(exist_ok=True)
        call = tool_call("hold", {"marks": str(marks)}, casefile_id=casefile_id) | more
        return await self.ask("/v1/sessions/execute", call, request_id)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Casekeeper]:
        """The SDK as the operator."""
        async with Casekeeper(self.url, token=self.token) as ck:
            yield ck

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; its exit code and what it said on stderr."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(_WAIT_S):
            _, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, (err or b"").decode()


@asynccontextmanager
async def deployed(
    data: Path,
    *options: str,
    program: Sequence[str] = (str(holding.__file__),),
    log: Path | None = None,
    **settings: str,
) -> AsyncGenerator[Deployed]:
    """`casekeeper serve` on this data directory; the operator's password is kept there, for the next start.

    `log`: where its stderr goes, for one that says more than a pipe holds.
    """
    environment = {**os.environ, **{f"CASEKEEPER_{name.upper()}": text for name, text in settings.items()}}  # noqa: TID251 - of the process under test
    command = [sys.executable, *program, "serve", "--port", "0", "--json", "--data", str(data)]
    with log.open("ab") if log else nullcontext(subprocess.PIPE) as err:
        process = await asyncio.create_subprocess_exec(
            *command, *options, stdout=subprocess.PIPE, stderr=err, env=environment, cwd=ROOT
        )
    assert process.stdout is not None
    lines: list[Any] = []
    try:
        async with asyncio.timeout(_WAIT_S):
            while not lines or lines[-1]["event"] != "ready":
                line = await process.stdout.readline()
                assert line, log.read_text() if log else (await process.communicate())[1].decode()
                lines.append(json.loads(line))
        server = Deployed(process, data, lines)
        for line in lines:
            if line["event"] == "first_login":
                (data / "password").write_text(line["password"])
        await server.log_in((data / "password").read_text())
        yield server
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def begun(marks: Path, count: int = 1) -> list[str]:
    """The names of the marks, as soon as there are so many."""
    async with asyncio.timeout(_WAIT_S):
        while len(found := [path.name for path in marks.glob("begun-*")]) < count:
            await asyncio.sleep(0.01)
    return sorted(found)


async def gone(pid: int) -> None:
    """Returns when there is no such process any more."""
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            await asyncio.sleep(0.02)
