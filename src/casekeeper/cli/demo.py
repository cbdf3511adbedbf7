"""The main job from end to end, as a story on a terminal: a mailbox, a tool, an agent, an access list, a record."""

import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, TypeVar

from rich.markup import escape
from rich.text import Text

from casekeeper.cli.exits import DATA, FAULT, Stop
from casekeeper.cli.opening import DATABASE, HOLDER, holder
from casekeeper.cli.output import Column, Output, printable, table, took
from casekeeper.cli.serving import serving, stopping
from casekeeper.client import ApiError, Casekeeper, Conflict, Denied, NotFound
from casekeeper.server import Server
from casekeeper.settings import Settings
from casekeeper.verify import verify

if TYPE_CHECKING:
    from casekeeper.journal.events import ExecutionEvent

E = TypeVar("E", bound=ApiError)

SAM, VERA, MAX = "sam@example.com", "vera@example.com", "max@example.com"
AGENT, PROMPT = "offline-researcher", "Find my tax documents from 2024"

# Says that a directory is a demo's, so that no other is ever touched.
_MARK = "DEMO"
_NOTE = "Made by `casekeeper demo`. It can be deleted at any time.\n"
_SHOWN = 4


async def tell(settings: Settings, out: Output, *, stay: bool) -> None:
    """Tell the story; then wait for Ctrl-C, if the server shall stay."""
    _claim(settings)
    port = settings.port if _is_free(settings.host, settings.port) else 0
    async with serving(settings.model_copy(update={"port": port})) as (server, url):
        story = _Story(out)
        async with _people(server, url) as (people, password):
            await story.tell(people, url, settings)
        with stopping() as stop:
            story.end(url, password, stay=stay)
            if stay:
                await stop.wait()
    if stay:
        out.remark("Stopped. `casekeeper demo` tells the story again in the same directory.")


def _claim(settings: Settings) -> None:
    data, mark = settings.data, settings.data / _MARK
    if (data / DATABASE).exists() and not mark.exists():
        raise Stop(f"{data} holds data that is no demo's. Name another directory with --data.", DATA)
    if (data / HOLDER).exists() and (url := holder(data)) and _answers(url):
        raise Stop(f"The demo is running already, at {url}.", DATA)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark.write_text(_NOTE, "utf-8")


@asynccontextmanager
async def _people(server: Server, url: str) -> AsyncGenerator[tuple[dict[str, Casekeeper], str]]:
    """A client for each person, and the password that they got for this run of the demo."""
    password = secrets.token_urlsafe(9)
    async with AsyncExitStack() as stack:

        async def client(user_id: str, **login: Any) -> Casekeeper:
            return await stack.enter_async_context(
                Casekeeper(url, **login or {"user_id": user_id, "password": password})
            )

        operator = await client("", token=lambda: server.identity.logins.mint_for(server.settings.operator))
        for user_id in (SAM, VERA, MAX):
            name = user_id.partition("@")[0].title()
            try:
                await operator.accounts.create(user_id, password=password, display_name=name)
            except Conflict:
                # The directory has been used before; whoever runs the demo gets a login that works.
                await operator.accounts.update(user_id, password=password)
        yield {user_id: await client(user_id) for user_id in (SAM, VERA, MAX)}, password


class _Story:
    """Prints one step after another."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._number = 0

    async def tell(self, people: dict[str, Casekeeper], url: str, settings: Settings) -> None:
        """Everything, in order."""
        sam = people[SAM]
        self._step("A server", f"{url}, data in {settings.data}", url=url)
        casefile = await sam.casefiles.create("Tax 2024", description="What the tax office asks for")
        casefile_id = casefile.casefile_id
        await sam.permissions.grant(casefile_id, VERA, "viewer")
        self._step(
            "A casefile", f"{casefile_id} “{casefile.title}”: Sam owns it, Vera views it", casefile=casefile
        )
        await self._mailbox(sam, casefile_id)
        await self._tool(sam, casefile_id)
        await self._agent(sam, casefile_id)
        await self._access(people, casefile_id)
        await self._record(sam, casefile_id, casefile.record_session_id or "")

    def end(self, url: str, password: str, *, stay: bool) -> None:
        """Where to go from here."""
        if self._out.as_json:
            login = {"user_id": SAM, "password": password}
            self._out.json({"step": "login", "url": url, **login, "running": stay}, compact=True)
            return
        print_ = self._out.console.print
        print_()
        if stay:
            print_(f"[bold]The server stays at {url}[/] · Ctrl-C stops it", highlight=False)
            print_(
                f"  {SAM}  {password}  (vera@ and max@ have the same password)",
                highlight=False,
                soft_wrap=True,
            )
            print_(f"  casekeeper login {url} --user {SAM}", highlight=False, soft_wrap=True)
        else:
            print_("Done. Without --exit the server stays, with a login for Sam.", highlight=False)

    async def _mailbox(self, sam: Casekeeper, casefile_id: str) -> None:
        with as_file(files("casekeeper.reading") / "sample.mbox") as path:
            result = (await sam.documents.import_file(casefile_id, path)).raise_for_failure()
        found = result.outputs
        odd = len(found["problems"])
        remark = f", {odd} with a fault that is reported" if odd else ""
        self._step(
            "A mailbox", f"{found['added']} documents filed from {found['filename']}{remark}", result=result
        )

    async def _tool(self, sam: Casekeeper, casefile_id: str) -> None:
        result = (await sam.run_tool(casefile_id, "gmail_search", query="invoice")).raise_for_failure()
        messages: list[dict[str, Any]] = result.outputs["messages"]
        about = f"gmail_search “invoice” found {len(messages)} mails in {took(result.duration_ms)}"
        self._step("A tool", about, result=result)
        self._lines(f"{str(m['sent_at'])[:10]}  {m['title']}" for m in messages[:_SHOWN])

    async def _agent(self, sam: Casekeeper, casefile_id: str) -> None:
        result = (await sam.run_agent(casefile_id, AGENT, PROMPT)).raise_for_failure()
        calls: list[Any] = result.outputs["tool_events"]
        about = f"{AGENT} (rules, no model), {len(calls)} tool calls in {took(result.duration_ms)}"
        self._step("An agent", about, result=result)
        self._lines([f"“{PROMPT}”", *str(result.outputs["response"]).splitlines()[:_SHOWN]])

    async def _access(self, people: dict[str, Casekeeper], casefile_id: str) -> None:
        stranger = await _refusal(NotFound, lambda: people[MAX].casefiles.get(casefile_id))
        missing = await _refusal(NotFound, lambda: people[MAX].casefiles.get(f"{casefile_id[:-6]}000000"))
        viewer = await _refusal(Denied, lambda: people[VERA].run_tool(casefile_id, "note_add", text="Hello"))
        reads = (await people[VERA].run_tool(casefile_id, "mail_search", query="invoice")).raise_for_failure()
        if stranger.code != missing.code:
            raise Stop("A stranger can tell an existing casefile from a missing one.", FAULT)
        about = "asked at every call, and at every tool call of an agent"
        self._step("An access list", about, stranger=stranger.problem, viewer=viewer.problem)
        self._lines(
            (
                f"Max, a stranger, reads the casefile  → {stranger.status}, as for one that is missing",
                f"Vera, a viewer, searches its mail    → {len(reads.outputs['messages'])} mails",
                f"Vera, a viewer, adds a note          → {viewer.status} {viewer.code}, on record",
            )
        )

    async def _record(self, sam: Casekeeper, casefile_id: str, record_session_id: str) -> None:
        facts = [e async for e in sam.events.each(casefile_id=casefile_id, view="journal", order="asc")]
        sessions = list(dict.fromkeys([record_session_id, *(f.session_id for f in facts)]))
        lines = [line for session_id in sessions async for line in sam.record(session_id)]
        report = verify(lines)
        if report.exit_code != 0:
            raise Stop(f"The record does not verify: {report.findings[0]}", report.exit_code)
        ends = [f for f in facts if f.kind != "started"]
        self._step("A record", f"what was done in {casefile_id}, by whom, and how it ended", facts=ends)
        if not self._out.as_json:
            columns = (
                Column("  TIME", fixed=True),
                Column("WHO"),
                Column("WHAT"),
                Column("HOW IT ENDED"),
                Column("", right=True),
            )
            self._out.print(table(columns, map(_row, ends)))
        about = (
            f"{len(lines)} facts in {len(report.sessions)} chains: intact, nothing changed, nothing missing"
        )
        self._step("Verified", about, sessions=report.sessions)

    def _step(self, title: str, about: str, **values: Any) -> None:
        self._number += 1
        if self._out.as_json:
            self._out.json({"step": title, "about": about, **values}, compact=True)
            return
        line = Text.from_markup(f"[bold green]✓[/] [bold]{escape(title)}[/]  ")
        self._out.console.print(line.append(about), highlight=False)

    def _lines(self, lines: Iterable[str]) -> None:
        if self._out.as_json:
            return
        console = self._out.console
        room = min(console.width, 120) - 4
        for line in lines:
            text = printable(line)
            console.print(Text("    " + (text if len(text) <= room else text[: room - 1] + "…"), style="dim"))


def _row(fact: "ExecutionEvent") -> tuple[str, ...]:
    instant: datetime = fact.ended_at or fact.started_at
    who = (fact.actor_user_id or "").partition("@")[0]
    thing = "the session" if fact.kind in ("opened", "closed") else "the casefile"
    # What was refused before there was a session is told by the refusal's inputs.
    inputs: dict[str, Any] = fact.inputs or {}
    what = fact.operation_name or str(inputs.get("operation_name", thing))
    if fact.parent_event_id:
        what = f"  by the agent: {what}"
    how = f"{fact.kind}".replace("_", " ") + (f" ({fact.error_type})" if fact.error_type else "")
    return f"  {instant.astimezone():%H:%M:%S}", who, what, how, took(fact.duration_ms)


async def _refusal(expected: type[E], call: Callable[[], Awaitable[object]]) -> E:
    """The refusal that a call meets.

    Raises:
        Stop: It was let through.
    """
    try:
        await call()
    except expected as refusal:
        return refusal
    raise Stop("A call went through that the access list does not allow.", FAULT)


def _is_free(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_server((host, port)):
        return True
    return False


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=1):
        return True
    return False
