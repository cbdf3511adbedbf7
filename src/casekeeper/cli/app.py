"""The tree of commands, and how each way to fail becomes one line and an exit code."""

import asyncio
import sys
from collections.abc import Sequence

import typer

from casekeeper.cli import (
    accounts,
    backup,
    bundles,
    calling,
    casefiles,
    document_import,
    documents,
    records,
    running,
    server,
    upkeep,
    verifying,
)
from casekeeper.cli.exits import (
    EPILOG,
    FAULT,
    INTERRUPTED,
    OK,
    USAGE,
    Stop,
    broken_pipe,
    code_of,
    line_of,
    say,
    told,
)

app = typer.Typer(
    name="casekeeper",
    help="Casefiles in which people and agents work under one access list and one verifiable record.",
    epilog=EPILOG,
    no_args_is_help=True,
    # Plain help: it reads as well, and comes three times as fast.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (
    server,
    accounts,
    casefiles,
    document_import,
    documents,
    running,
    calling,
    verifying,
    records,
    bundles,
    backup,
    upkeep,
):
    module.add_to(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Whatever goes wrong is one line on stderr, never a traceback."""
    try:
        code = app(list(arguments), prog_name="casekeeper", standalone_mode=False)
    except Stop as stop:
        say(f"error: {stop}")
        return stop.code
    except (KeyboardInterrupt, asyncio.CancelledError, typer.Abort):
        say("interrupted")
        return INTERRUPTED
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = getattr(context, "command_path", "casekeeper")
        if context is not None and error.format_message() == context.get_help():
            # No command was named: typer makes its help the message, which is not one line.
            say(context.get_help())
            return USAGE
        message = " ".join(error.format_message().split())
        say(f"error: {message.rstrip('.')}. See: {command} --help")
        return USAGE
    except BrokenPipeError:
        broken_pipe()
    except Exception as error:
        return _failed(error)
    return code if isinstance(code, int) else OK


def _failed(error: Exception) -> int:
    from casekeeper.client import ApiError
    from casekeeper.errors import CasekeeperError

    if isinstance(error, ApiError):
        say(f"error: {line_of(error)}")
        return code_of(error)
    if isinstance(error, CasekeeperError):
        return told(error)
    if sys.flags.dev_mode:
        raise error
    text = " ".join(str(error).split()) or "no more is known"
    say(f"error: {type(error).__name__}: {text} (python -X dev -m casekeeper.cli … shows where)")
    return FAULT
