"""`import`: mailboxes and mails from files into a casefile."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casekeeper.cli.casefiles import CasefileId
from casekeeper.cli.command import client_command
from casekeeper.cli.exits import FAILED, USAGE, Stop
from casekeeper.cli.output import Output, printable, took

if TYPE_CHECKING:
    from rich.progress import Progress

    from casekeeper.client import Casekeeper
    from casekeeper.client import Progress as Step
    from casekeeper.client.results import Result

_NAME_MAX = 24


def add_to(app: typer.Typer) -> None:
    """Put the command into the tree."""
    client_command(app, "import")(import_)


async def import_(
    ck: "Casekeeper",
    out: Output,
    casefile_id: CasefileId,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of files.", show_default=False)
    ],
) -> None:
    """Bring mail into a casefile. Ctrl-C stops cleanly; importing again goes on from there."""
    files = _files(paths)
    results: list[dict[str, Any]] = []
    with _progress(out) as progress:
        for path in files:
            line = _Line(progress, printable(path.name))
            try:
                result = await ck.documents.import_file(casefile_id, path, on_progress=line.step)
            except asyncio.CancelledError:
                out.remark(
                    f"Stopped in {path.name}. What was filed stays; importing it again goes on from there."
                )
                raise
            line.remove()
            results.append({"path": str(path), "result": result})
            if not out.as_json:
                out.console.print(_told(path, result), markup=False, highlight=False, soft_wrap=True)
    if out.as_json:
        out.json(results)
    if not all(entry["result"].success for entry in results):
        raise Stop("Not everything could be imported.", FAILED)


class _Line:
    """One file on its way, as a line with a bar, the rate and the time left."""

    def __init__(self, progress: "Progress", name: str) -> None:
        self._progress = progress
        self._name = name if len(name) <= _NAME_MAX else f"…{name[1 - _NAME_MAX :]}"
        self._stage = ""
        self._task = progress.add_task(self._name, total=None, rate="")

    def step(self, step: "Step") -> None:
        """Show how far it is; each stage starts from nothing."""
        if step.stage != self._stage:
            self._stage = step.stage
            self._progress.reset(self._task, description=f"{self._name} {step.stage}", rate="")
        self._progress.update(self._task, completed=step.done, total=step.total)
        [task] = [t for t in self._progress.tasks if t.id == self._task]
        if task.speed:
            rate = f"{task.speed / 1e6:.1f} MB/s" if step.unit == "bytes" else f"{task.speed:.0f} documents/s"
            self._progress.update(self._task, rate=rate)

    def remove(self) -> None:
        """Make room for the next."""
        self._progress.remove_task(self._task)


def _progress(out: Output) -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = out.remarks
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=out.as_json or not console.is_terminal,
    )


def _files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        elif path.is_file():
            files.append(path)
        else:
            raise Stop(f"There is no file {path}.", USAGE)
    if not files:
        raise Stop("There are no files in there.", USAGE)
    return files


def _told(path: Path, result: "Result") -> str:
    name = printable(str(path))
    if not result.success:
        return f"{name}: {result.error.message if result.error else 'failed'}"
    found = result.outputs
    parts = [f"{found['added']} filed"]
    if found["duplicates"]:
        parts.append(f"{found['duplicates']} there already")
    if found["unreadable"]:
        parts.append(f"{found['unreadable']} kept unread")
    return f"{name}: {', '.join(parts)} ({took(result.duration_ms)})"
