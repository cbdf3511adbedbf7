"""What each concept gives to a batch: how to check its conditions and write its records."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from casekeeper.journal.commits import Commit, Condition, Record
from casekeeper.storage.sql.statements import Question, Tx, Writing

Finds = dict[type[Condition], Callable[[Tx, Any], Any]]
"""How what a condition's `refusal` is given is found in the database, by the condition's type."""

Writes = dict[type[Record], Callable[[Tx, Any], object]]
"""How a record is written, by its type."""

FindsHere = dict[type[Condition], Callable[[Any, Any], Any]]
TakesHere = dict[type[Record], Callable[[Any, Any], object]]
"""Likewise, as methods of a part of a batch."""


class Part:
    """A concept as one batch meets it: it reads ahead for all commits at once, and writes what they add at the end."""

    finds: ClassVar[FindsHere] = {}
    """What conditions are given out of the batch, instead of the database."""
    takes: ClassVar[TakesHere] = {}
    """Takes note of a record, before it is written if there is a way to write it at once."""

    def questions(self, commits: Sequence[Commit]) -> Iterable[Question]:
        """What these commits ask for."""
        return ()

    def changes(self) -> Sequence[Writing]:
        """What was taken in since the last call, to be written."""
        return ()


def first(row: Sequence[Any] | None) -> Any:
    """The only column of a row that may be missing."""
    return row[0] if row else None
