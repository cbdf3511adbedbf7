"""Operations: `run tool`, `run agent`, `tail`."""

import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casekeeper.cli.calling import pairs_of
from casekeeper.cli.command import client_command, placed_command
from casekeeper.cli.connection import IN_PROCESS, Target, connected
from casekeeper.cli.exits import FAILED, USAGE, Stop
from casekeeper.cli.output import Output, printable, took, when

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.client.results import Result
    from casekeeper.journal.events import ExecutionEvent

run = typer.Typer(help="Run a tool or an agent.", no_args_is_help=True, rich_markup_mode=None)

# Facts that begin something carry what was asked; these lines must fit a terminal.
_SHOWN_MAX = 70

InCasefile = Annotated[
    str | None, typer.Option("--casefile", "-c", help="Casefile to work in.", show_default=False)
]
InSession = Annotated[
    str | None, typer.Option("--session", help="Session to work in; else your own.", show_default=False)
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.001, help="Seconds it may take.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.add_typer(run, name="run")
    placed_command(app, "tail")(tail)


@client_command(run, "tool")
async def run_tool(
    ck: "Casekeeper",
    out: Output,
    name: Annotated[str, typer.Argument(help="Name of the tool.", show_default=False)],
    casefile: InCasefile = None,
    session: InSession = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="key=text or key:=JSON; may be repeated.", show_default=False),
    ] = None,
    json_params: Annotated[
        str | None,
        typer.Option(help="All parameters as a JSON object; @FILE or - reads it.", show_default=False),
    ] = None,
    seconds: Timeout = None,
    background: Annotated[bool, typer.Option("--background", help="Do not wait for its end.")] = False,
) -> None:
    """Run a tool and print its outputs."""
    from casekeeper.client import tool

    _must_name_a_place(casefile, session)
    parameters = _parameters(parameter or [], json_params)
    result = await ck.sessions.execute(
        tool(name, **parameters),
        casefile_id=casefile,
        session_id=session,
        mode="background" if background else None,
        timeout_s=seconds,
    )
    if out.as_json:
        out.json(result)
    elif result.success:
        out.json(result.outputs)
    _conclude(result, out)


@client_command(run, "agent")
async def run_agent(
    ck: "Casekeeper",
    out: Output,
    name: Annotated[str, typer.Argument(help="Name of the agent or model.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="What to do.", show_default=False)],
    casefile: InCasefile = None,
    session: InSession = None,
    seconds: Timeout = None,
) -> None:
    """Run an agent; its text and tool calls are shown as they come."""
    from casekeeper.client import agent
    from casekeeper.client.results import Result
    from casekeeper.journal.events import ExecutionEvent, Kind

    _must_name_a_place(casefile, session)
    operation, result, root, wrote = agent(name, prompt), None, None, False
    stream = ck.stream_execute(operation, casefile_id=casefile, session_id=session, timeout_s=seconds)
    try:
        async with aclosing(stream) as items:
            async for item in items:
                match item:
                    case Result():
                        result = item
                    case ExecutionEvent(parent_event_id=None):
                        root = item.event_id
                    case ExecutionEvent(kind=Kind.STARTED):
                        out.remark(f"→ {item.operation_name} {_short(item.inputs)}")
                    case ExecutionEvent():
                        out.remark(f"  {item.kind} {took(item.duration_ms)} {_why(item)}".rstrip())
                    case _ if not out.as_json and item.data.get("type") == "text":
                        wrote = True
                        sys.stdout.write(_text(item.data["delta"]))
                        sys.stdout.flush()
                    case _:
                        pass
    except BaseException:
        # The run would go on without us; whoever stops the command means the run.
        if root and result is None:
            await _cancel(ck, root)
        raise
    assert result is not None
    if out.as_json:
        out.json(result)
    elif wrote:
        sys.stdout.write("\n")
        sys.stdout.flush()
    elif result.success:
        out.answer(None, _text(str(result.outputs.get("response", ""))))
    _conclude(result, out)


async def tail(
    target: Target,
    out: Output,
    session_id: Annotated[
        str, typer.Argument(metavar="SESSION", help="Id of the session, ts_…", show_default=False)
    ],
    after: Annotated[int, typer.Option(min=0, help="Begin behind this number.")] = 0,
    follow: Annotated[bool, typer.Option(help="Wait for what comes.")] = True,
) -> None:
    """Show a session's facts as they come. Ctrl-C ends it."""
    from casekeeper.journal.events import ExecutionEvent

    async with connected(target) as ck:
        # A directory that is open in this process has no other writers: there is nothing to wait for.
        alone = ck.url == IN_PROCESS
        if alone or not follow:
            cursor = None
            while True:
                session = await ck.sessions.get(
                    session_id, view="journal", limit=200, cursor=cursor, include_events=True
                )
                assert session.events is not None
                for event in session.events.items:
                    if event.seq > after:
                        _print_fact(event, out)
                if not session.events.has_more:
                    break
                cursor = session.events.next_cursor
            if alone and follow:
                out.remark("No server is running on this directory, so nothing more can come.")
            return
        async with aclosing(ck.sessions.stream(session_id, after)) as items:
            async for item in items:
                if isinstance(item, ExecutionEvent):
                    _print_fact(item, out)


def _print_fact(event: "ExecutionEvent", out: Output) -> None:
    if out.as_json:
        out.json(event, compact=True)
        return
    what = event.operation_name or ""
    about = _short(event.inputs) if event.ended_at is None else took(event.duration_ms)
    line = f"{event.seq:>5}  {when(event.ended_at or event.started_at)}  {event.kind:<10} {what} {about} {_why(event)}"
    if event.parent_event_id:
        line += "(nested)"
    out.console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _conclude(result: "Result", out: Output) -> None:
    """The line under a result; a failure ends the command.

    Raises:
        Stop: The operation failed.
    """
    if result.success is False:
        error = result.error
        message = f"{error.message} ({error.type})" if error else "It failed."
        raise Stop(f"{result.operation_name} failed: {printable(message)}", FAILED)
    if result.status == "pending":
        named = (f"{one.kind} {one.id}" if one.id else one.kind for one in result.waiting_for)
        state = f"waits for {', '.join(named) or 'its turn'}"
    else:
        state = took(result.duration_ms) if result.success else "runs in the background"
    usage = result.usage or {}
    tokens = int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))
    counted = f" · {tokens} tokens" if tokens else ""
    out.remark(f"{result.operation_name} · {state}{counted} · {result.event_id} · {result.session_id}")


async def _cancel(ck: "Casekeeper", event_id: str) -> None:
    from casekeeper.client import ApiError

    try:
        await ck.operations.cancel(event_id, reason="The command was stopped.")
    except ApiError:
        pass


def _must_name_a_place(casefile: str | None, session: str | None) -> None:
    if casefile is None and session is None:
        raise Stop("Name where to work: --casefile or --session.", USAGE)


def _parameters(pairs: list[str], whole: str | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if whole is not None:
        try:
            text = sys.stdin.read() if whole == "-" else whole
            text = Path(whole[1:]).read_text("utf-8") if whole.startswith("@") else text
            parameters |= json.loads(text)
        except (OSError, ValueError) as error:
            raise Stop(f"--json-params: {error}.", USAGE) from error
        except TypeError as error:
            raise Stop("--json-params takes a JSON object.", USAGE) from error
    return parameters | pairs_of(pairs, "--parameter")


def _short(inputs: dict[str, Any] | None) -> str:
    text = " ".join(f"{k}={v!r}" for k, v in (inputs or {}).items())
    text = printable(text)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def _why(event: "ExecutionEvent") -> str:
    return f"{event.error_type} " if event.error_type else ""


def _text(text: str) -> str:
    """Text for a terminal, its line breaks kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
