"""What commands print: JSON for programs, tables and lines for people; plain without a terminal, 80 columns with one."""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from casekeeper.values import value

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

T = TypeVar("T")

# Without a terminal nothing is cut or wrapped: the next program in the pipe wants all of it.
_UNBOUNDED = 10_000


@value
class Column:
    """A column of a table; `fixed` ones are never wrapped or cut."""

    title: str
    fixed: bool = False
    right: bool = False


class StoppedOperations(Protocol):
    """What ended with a right: operations that ran, those that waited, and by worker those that have not ended yet."""

    stopped: list[str]
    waiting: list[str]
    unconfirmed: dict[str, list[str]]


class Output:
    """Where a command's answer goes: stdout. Remarks go to stderr, so that a pipe gets nothing but the answer."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def console(self) -> "Console":
        """Stdout for people."""
        return _console(stderr=False)

    @property
    def remarks(self) -> "Console":
        """Stderr for people."""
        return _console(stderr=True)

    def answer(self, value: Any, text: str) -> None:
        """The value as JSON, or the text."""
        if self.as_json:
            self.json(value)
        else:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def receipt(self, ended: StoppedOperations, text: str) -> None:
        """An answer that tells what ran for somebody who lost a right, and what has not been heard of."""
        if ended.stopped:
            text += f" Stopped: {', '.join(ended.stopped)}."
        if ended.waiting:
            text += f" Ended while waiting: {', '.join(ended.waiting)}."
        self.answer(ended, text)
        for worker, event_ids in ended.unconfirmed.items():
            self.remark(
                f"Not heard of yet from {worker}: {', '.join(event_ids)}. They can do nothing any more."
            )

    def remark(self, text: str) -> None:
        """A line beside the answer; nothing with `--json`."""
        if not self.as_json:
            self.remarks.print(text, markup=False, highlight=False, soft_wrap=True, style="dim")

    def rows(
        self, items: Sequence[T], columns: Sequence[Column], row: Callable[[T], Sequence[str]], none: str
    ) -> None:
        """The items as a JSON list, or as a table, or the sentence that there are none."""
        if self.as_json:
            self.json(items)
        elif not items:
            self.remark(none)
        else:
            self.console.print(table(columns, (row(item) for item in items)))

    def json(self, value: Any, *, compact: bool = False) -> None:
        """The value as JSON; compact is one line."""
        from pydantic_core import to_json

        sys.stdout.buffer.write(to_json(value, indent=None if compact else 2, serialize_unknown=True) + b"\n")
        sys.stdout.buffer.flush()

    def print(self, what: "RenderableType") -> None:
        """Something for people."""
        self.console.print(what, highlight=False)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> "Table":
    """A plain table without lines; its cells are never read as markup."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(
            column.title,
            no_wrap=column.fixed,
            overflow="ignore" if column.fixed else "fold",
            justify="right" if column.right else "left",
        )
    for cells in rows:
        made.add_row(*(Text(printable(cell)) for cell in cells))
    return made


def printable(text: str) -> str:
    """The text without control characters: what came with a mail must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def when(instant: datetime | None) -> str:
    """An instant in the time zone of whoever reads."""
    return instant.astimezone().strftime("%Y-%m-%d %H:%M") if instant else ""


def took(ms: int | None) -> str:
    """A duration, short."""
    if ms is None:
        return ""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    # Made anew each time: tests and pipes replace the streams.
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _UNBOUNDED, emoji=False)
