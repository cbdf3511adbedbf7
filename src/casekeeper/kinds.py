"""Kinds of operation, as data: what rooms, doors, the SDK and the command line must know of tools, agents and what follows.

A new kind is a row here, its call in `operations/operation.py`, and a room that brings its operations. Light to import: rows
name code as text.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from casekeeper.values import value


@value
class OperationKind:
    """One kind of operation.

    Attributes:
        name: `operation_type` in calls and facts; calls name an operation in the field `<name>_name`.
        plural: What operators' rules call a list of its operations.
        source: Opens where its operations come from, as "module:function" (`operations/sources.py`).
        is_rated: Each operation has a rate limit of its own.
        is_steered: What it does next follows what it has read. So whatever it reads taints it, and its answer taints others.
    """

    name: str
    plural: str
    source: str
    is_rated: bool = False
    is_steered: bool = False


KINDS: Mapping[str, OperationKind] = {
    kind.name: kind
    for kind in (
        OperationKind("tool", "tools", "casekeeper.operations.sources:open_tools", is_rated=True),
        OperationKind("agent", "agents", "casekeeper.agents.opening:open_agents", is_steered=True),
    )
}
"""All kinds, in the order in which the catalogue lists them."""

if TYPE_CHECKING:
    OperationType: TypeAlias = str
else:
    OperationType = Literal[tuple(KINDS)]
    """The name of a kind."""
