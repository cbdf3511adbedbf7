"""Agents: their definition, the services that their runs use, and their budgets."""

from decimal import Decimal
from typing import Protocol

from casekeeper.documents.blobs import BlobStore
from casekeeper.operations.operation import OperationSource
from casekeeper.values import value


@value
class RegisteredAgent:
    """An agent of this deployment.

    Attributes:
        instructions: What it is told besides the house rules.
        model: An alias, or `provider:model`.
        tools: The tools that it may call, where the caller's rights cover them; None for all.
    """

    name: str
    description: str
    instructions: str
    model: str
    tools: frozenset[str] | None = None


@value
class Budgets:
    """What one run may spend before it is stopped as `budget_spent`. Its time is the operation's deadline.

    Attributes:
        requests: Answers of the model.
        tool_calls: Calls of tools that entered the corridor, refused and failed ones too.
        total_tokens: In and out, as the provider counts them.
        cost: In US dollars, where the model's price is known; None for no limit.
    """

    requests: int = 30
    tool_calls: int = 60
    total_tokens: int = 500_000
    cost: Decimal | None = None


class Conversations(Protocol):
    """Where a session's conversation goes on from."""

    async def conversation(self, session_id: str) -> str | None:
        """The blob of the session's newest snapshot, None before its first agent run."""
        ...


@value
class Means:
    """What the runs of all agents work with."""

    tools: OperationSource
    conversations: Conversations
    blobs: BlobStore
    budgets: Budgets
