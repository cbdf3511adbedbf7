"""`serve` and `demo`."""

from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casekeeper.cli.exits import USAGE, Stop
from casekeeper.cli.opening import read_settings
from casekeeper.cli.output import Output

if TYPE_CHECKING:
    from casekeeper.identity.opening import FirstLogin
    from casekeeper.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.command("serve")(serve)
    app.command("demo")(demo)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data directory; made if absent.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that share the port.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line per event.")] = False,
) -> None:
    """Serve a data directory. The first start makes an operator and shows the login once."""
    settings = read_settings(data, host=host, port=port, workers=workers)
    if settings.workers > 1 and not settings.is_shared:
        raise Stop(
            "The embedded store serves one process: --workers must be 1, or the store PostgreSQL or Firestore.",
            USAGE,
        )
    from casekeeper.cli.serving import run_loop

    run_loop(lambda: _serve(settings, Output(as_json=as_json)))


async def _serve(settings: "Settings", out: Output) -> None:
    from casekeeper.cli.serving import serving, stopping

    prepared, ready = partial(_tell_login, settings, out), partial(_tell_ready, settings, out)
    if settings.workers > 1:
        from casekeeper.cli.workers import supervise

        await supervise(settings, prepared, ready)
    else:
        with stopping() as stop:
            async with serving(settings) as (server, url):
                prepared(server.first_login)
                ready(url)
                await stop.wait()
    out.remark("Stopped.")


def _tell_login(settings: "Settings", out: Output, first: "FirstLogin | None") -> None:
    """Say what starts, and at its first start how to log in."""
    if out.as_json:
        if first:
            login = {"user_id": first.user_id, "password": first.password}
            out.json({"event": "first_login", **login}, compact=True)
        return
    lines = [f"casekeeper {version('casekeeper')} · data in {settings.data}"]
    if first:
        lines.append("The operator's login, shown this once:")
        lines.append(f"  user      {first.user_id}\n  password  {first.password}")
    out.answer(None, "\n".join(lines))


def _tell_ready(settings: "Settings", out: Output, url: str) -> None:
    """Say where the server is."""
    if out.as_json:
        out.json({"event": "ready", "url": url, "data": str(settings.data.resolve())}, compact=True)
        return
    lines = (
        []
        if _is_loopback(settings.host)
        else ["It speaks plain HTTP: put something with TLS in front of it."]
    )
    by = f" · {settings.workers} workers" if settings.workers > 1 else ""
    out.answer(None, "\n".join([*lines, f"Ready at {url}{by} · Ctrl-C stops it"]))


def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="End when the story is told.")] = False,
    data: Annotated[Path, typer.Option(help="Directory of the demo; made if absent.")] = Path(
        ".casekeeper-demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line per step.")] = False,
) -> None:
    """Show the main job, end to end. It has a store of its own; the server stays, unless told to --exit."""
    settings = read_settings(data)
    from casekeeper.cli.demo import tell
    from casekeeper.cli.serving import run_loop

    run_loop(lambda: tell(settings, Output(as_json=as_json), stay=not exit_))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
