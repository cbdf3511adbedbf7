"""Size limits of requests: too large headers and bodies are refused before anything else."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casekeeper.doors.http.problems import problem
from casekeeper.errors import BodyTooLarge, CasekeeperError, HeadersTooLarge
from casekeeper.verbs import VERBS

HEADERS_MAX = 32 * 1024
"""All header lines together, in bytes. A token has 8 KiB at most."""

BODY_MAX = 10 * 1024 * 1024
"""A JSON body, in bytes. Uploads are streamed and have a limit of their own."""

UPLOAD_PATH = VERBS["documents/upload"].path


class SizeLimits:
    """ASGI middleware; costs nothing but a sum over the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what is too large, pass on the rest."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size, length = 0, 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"content-length" and value.isdigit():
                length = int(value)
        if size > HEADERS_MAX:
            await _refuse(HeadersTooLarge(f"Headers take at most {HEADERS_MAX} bytes."), scope, receive, send)
        elif scope["path"] == UPLOAD_PATH:
            await self._app(scope, receive, send)
        elif length > BODY_MAX:
            await _refuse(_too_large(), scope, receive, send)
        else:
            await self._app(scope, _counted(receive), send)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(
        f"A request body has at most {BODY_MAX} bytes; files are brought in through {UPLOAD_PATH}."
    )


async def _refuse(error: CasekeeperError, scope: Scope, receive: Receive, send: Send) -> None:
    await problem(error, Request(scope))(scope, receive, send)


def _counted(receive: Receive) -> Receive:
    # A body without a Content-Length is measured as it comes.
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > BODY_MAX:
                raise _too_large()
        return message

    return counted
