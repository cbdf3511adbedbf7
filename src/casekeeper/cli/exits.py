"""How commands end: exit codes by branch of errors, and one plain line for each error."""

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from casekeeper import errors

if TYPE_CHECKING:
    from casekeeper.client import ApiError

OK = 0
FAULT = errors.CasekeeperError.exit_code
USAGE = 2
FAILED = 3
UNAUTHENTICATED = errors.Unauthenticated.exit_code
DENIED = errors.Denied.exit_code
NOT_FOUND = errors.NotFound.exit_code
CONFLICT = errors.Conflict.exit_code
UNAVAILABLE = errors.Unavailable.exit_code
DATA = errors.CannotStart.exit_code
UNHEALTHY = 21
INTERRUPTED = 130

EPILOG = """\
Exit codes: 0 done; 1 a fault of casekeeper; 2 wrong usage; 3 the operation ran and failed; 10 not logged in;
11 not allowed; 12 not found; 13 conflict; 14 too large; 15 invalid; 16 too many requests; 17 gone; 18 server
unavailable; 20 settings, packages, data directory or files cannot be used; 21 doctor found something; verify: 0 intact,
30 payloads erased, 40 tampered, 41 gap, 42 diverges; 130 interrupted. docs/cli.md explains each.
"""


class Stop(Exception):
    """A command cannot go on: the line to print, and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the terminal is what a command line is for


def told(error: errors.CasekeeperError) -> int:
    """Say what went wrong in this process; returns the exit code. What the operator must mend names itself, without a code."""
    name = "" if isinstance(error, errors.CannotStart) else f" ({error.code})"
    say(f"error: {' '.join(error.detail.split())}{name}")
    return error.exit_code


def code_of(error: "ApiError") -> int:
    """The exit code of a refused call: that of the branch of the same name on the server's side."""
    from casekeeper.client import OperationFailed

    if isinstance(error, OperationFailed):
        return FAILED
    branches = (getattr(errors, kind.__name__, None) for kind in type(error).__mro__)
    return next((branch.exit_code for branch in branches if branch is not None), FAULT)


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
