"""How commands end: exit codes by branch, and one plain line for whatever goes wrong."""

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from casekeeper.client import ApiError

OK = 0
FAULT = 1
USAGE = 2
FAILED = 3
UNAUTHENTICATED = 10
DENIED = 11
NOT_FOUND = 12
CONFLICT = 13
TOO_LARGE = 14
INVALID = 15
LIMITED = 16
GONE = 17
UNAVAILABLE = 18
DATA = 20
UNHEALTHY = 21
INTERRUPTED = 130

EPILOG = """\
Exit codes: 0 done; 1 a fault of casekeeper; 2 wrong usage; 3 the operation ran and failed; 10 not logged in;
11 not allowed; 12 not found; 13 conflict; 14 too large; 15 invalid; 16 too many requests; 17 gone; 18 server
unavailable; 20 data directory or settings; 21 doctor found something; verify: 0 intact, 30 payloads erased,
40 tampered, 41 gap, 42 diverges; 130 interrupted. docs/cli.md explains each.
"""


class Stop(Exception):
    """A command cannot go on: the line to print, and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the terminal is what a command line is for


def code_of(error: "ApiError") -> int:
    """The exit code of a refused call, by its branch."""
    from casekeeper import client

    codes: dict[type[ApiError], int] = {
        client.Unauthenticated: UNAUTHENTICATED,
        client.Denied: DENIED,
        client.NotFound: NOT_FOUND,
        client.Conflict: CONFLICT,
        client.TooLarge: TOO_LARGE,
        client.Invalid: INVALID,
        client.Limited: LIMITED,
        client.Gone: GONE,
        client.Unavailable: UNAVAILABLE,
        client.OperationFailed: FAILED,
    }
    return next((code for branch, code in codes.items() if isinstance(error, branch)), FAULT)


def line_of(error: "ApiError") -> str:
    """What to say about a refused call."""
    from casekeeper.client import OperationFailed

    if isinstance(error, OperationFailed):
        return f"{error.result.operation_name} failed: {error.detail} ({error.code})"
    return f"{error.detail} ({error.code})"


def broken_pipe() -> NoReturn:
    """Whoever read our output has gone, which is no error: `casekeeper … | head`."""
    # Python flushes stdout once more at exit, which must not fail either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(OK)
