"""The Python SDK: everything that the server does, from an `async` program.

```python
from casekeeper.client import Casekeeper

async with Casekeeper("http://127.0.0.1:8377", user_id="sam@example.com", password="…") as ck:
    casefile = await ck.casefiles.create("Tax 2024")
    await ck.documents.import_file(casefile.casefile_id, Path("mail.mbox"))
    found = await ck.run_tool(casefile.casefile_id, "gmail_search", query="invoice")
    print(found.raise_for_failure().outputs)
```
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx2

from casekeeper.client.accounts import Accounts, Keys
from casekeeper.client.casefiles import Casefiles, Permissions
from casekeeper.client.connection import Connection, Retry, new_request_id
from casekeeper.client.documents import Documents
from casekeeper.client.errors import (
    ApiError,
    Conflict,
    Denied,
    FieldProblem,
    Gone,
    Invalid,
    Limited,
    NotFound,
    OperationFailed,
    ServerFault,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unreachable,
    unreachable,
)
from casekeeper.client.payloads import read
from casekeeper.client.sessions import (
    Events,
    Operation,
    Operations,
    Sessions,
    agent,
    stream_execute,
    tool,
)
from casekeeper.client.tokens import TokenSource
from casekeeper.client.uploads import Progress

if TYPE_CHECKING:
    from casekeeper.client.results import Result
    from casekeeper.journal.events import ExecutionEvent
    from casekeeper.operations.operation import CatalogEntry
    from casekeeper.sessions.streamed import StreamedDelta

__all__ = [
    "ApiError",
    "Casekeeper",
    "Conflict",
    "Denied",
    "FieldProblem",
    "Gone",
    "Invalid",
    "Limited",
    "NotFound",
    "OperationFailed",
    "Progress",
    "Retry",
    "ServerFault",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "agent",
    "new_request_id",
    "tool",
]


class Casekeeper:
    """A client of one server, for one user. Safe for concurrent use within one event loop.

    It logs in at the first call, renews its token before it ends, repeats what is safe to repeat, and raises
    `ApiError` where there is no answer. An operation that ran and failed is a result, not an error.
    """

    def __init__(
        self,
        url: str,
        *,
        user_id: str | None = None,
        password: str | None = None,
        api_key: str | None = None,
        token: str | TokenSource | None = None,
        retry: Retry | None = None,
        timeout: timedelta = timedelta(seconds=60),
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: Where the server is, such as `http://127.0.0.1:8377`.
            user_id: Goes with `password`. Give either these two, or `api_key`, or `token`.
            token: An access token, which is not renewed, or a function that gives a fresh one.
            timeout: How long a silent connection is waited for. Longer operations are taken up again by their
                `request_id`, so nothing has to be configured for them.
            transport: What carries requests; for tests, or an application in the same process.
        """
        ways = [user_id is not None or password is not None, api_key is not None, token is not None]
        if sum(ways) != 1 or (user_id is None) != (password is None):
            raise ValueError("give either user_id and password, or api_key, or token")
        credentials: dict[str, str] | None = None
        if user_id is not None and password is not None:
            credentials = {"user_id": user_id, "password": password}
        elif api_key is not None:
            credentials = {"api_key": api_key}
        self._connection = Connection(
            url,
            token=token,
            credentials=credentials,
            retry=retry or Retry(),
            timeout=timeout,
            transport=transport,
        )
        self.url = self._connection.url
        self.casefiles = Casefiles(self._connection)
        self.permissions = Permissions(self._connection)
        self.documents = Documents(self._connection)
        self.sessions = Sessions(self._connection)
        self.operations = Operations(self._connection)
        self.events = Events(self._connection)
        self.accounts = Accounts(self._connection)
        self.keys = Keys(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._connection.close()

    async def run_tool(self, casefile_id: str, name: str, /, **parameters: Any) -> "Result":
        """Run a tool in the caller's auto session of a casefile. More choices: `sessions.execute`."""
        return await self.sessions.execute(tool(name, **parameters), casefile_id=casefile_id)

    async def run_agent(
        self,
        casefile_id: str,
        name: str,
        prompt: str,
        *,
        message_history: Sequence[Mapping[str, str]] | None = None,
        session_id: str | None = None,
        timeout_s: float | None = None,
    ) -> "Result":
        """Run an agent. Without a `message_history` the session's conversation goes on; `[]` starts anew."""
        return await self.sessions.execute(
            agent(name, prompt, message_history=message_history),
            casefile_id=casefile_id,
            session_id=session_id,
            timeout_s=timeout_s,
        )

    def stream_execute(
        self,
        operation: Operation,
        *,
        casefile_id: str | None = None,
        session_id: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> "AsyncGenerator[ExecutionEvent | StreamedDelta | Result]":
        """Run an operation: its facts and its children's, progress in between, and last the result.

        A cut connection is taken up again: facts come once each, progress in the meantime is lost.
        """
        return stream_execute(
            self._connection,
            operation,
            casefile_id=casefile_id,
            session_id=session_id,
            timeout_s=timeout_s,
            request_id=request_id,
        )

    async def call(
        self, verb: str, fields: Mapping[str, Any] | None = None, *, request_id: str | None = None
    ) -> Any:
        """The result of any verb (docs/api.md), such as `casefiles/create`; `fields` are those of its command.

        Raises:
            KeyError: There is no such verb.
        """
        return await self._connection.ask(verb, fields or {}, request_id)

    async def record(self, session_id: str) -> AsyncGenerator[bytes]:
        """The lines of a session's record, as `casekeeper verify` and `verify.py` check them.

        Raises:
            Unreachable: The connection broke; what came so far is not the whole record.
        """
        http = self._connection.http
        path = f"/v1/sessions/{session_id}/record"
        rest = b""
        async with self._connection.stream(lambda: http.build_request("GET", path)) as response:
            try:
                async for chunk in response.aiter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line + b"\n"
            except httpx2.TransportError as error:
                raise unreachable(self.url, error) from error
        if rest:
            raise unreachable(self.url, EOFError("the record broke off within a line"))

    async def catalog(self) -> "list[CatalogEntry]":
        """All operations: what they do, take and need."""
        found = await self._connection.json("/v1/catalog")
        return read("operations.operation:CatalogEntry", found, is_page=True).items
