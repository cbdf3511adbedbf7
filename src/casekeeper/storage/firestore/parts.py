"""What each concept gives to a batch: how to check its conditions, write its records, and prefetch what they need."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from casekeeper.journal.commits import Condition, Record
from casekeeper.storage.firestore.view import View

Finds = dict[type[Condition], Callable[[View, Any], Awaitable[Any]]]
"""How what a condition's `refusal` is given is found, by the condition's type."""

Writes = dict[type[Record], Callable[[View, Any], Awaitable[None]]]
"""How a record is written, by its type."""

Ahead = dict[type[Condition] | type[Record], Callable[[Any, Mapping[str, str]], Sequence[str]]]
"""The paths that a condition or a record will certainly ask for; the casefiles of some sessions are known."""
