"""Registry of agents: registered ones, aliases of models, and the rule-based one that is always there."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from casekeeper.acl import Effect, role_for_effects
from casekeeper.agents.agent import Budgets, Conversations, Means, RegisteredAgent
from casekeeper.agents.routes import ALIASES, RULES, AgentMisconfigured, Providers, Route, route
from casekeeper.documents.blobs import BlobStore
from casekeeper.errors import ModelUnavailable
from casekeeper.journal.events import OperationType
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import (
    EVERYWHERE,
    AgentCall,
    CatalogEntry,
    Finished,
    OperationScope,
    OperationSource,
)

if TYPE_CHECKING:
    from pydantic_ai.models import Model

OFFLINE = "offline-researcher"
DEFAULT_TIMEOUT = timedelta(minutes=5)
"""How long a run may take: room for thirty answers of ten seconds each."""

_EFFECTS = frozenset({Effect.READ})


class AgentRegistry:
    """Agents by name. Their models are made at first use and kept until `close`."""

    def __init__(
        self,
        tools: OperationSource,
        conversations: Conversations,
        blobs: BlobStore,
        *,
        providers: Providers | None = None,
        aliases: Mapping[str, str] | None = None,
        agents: Iterable[RegisteredAgent] = (),
        budgets: Budgets | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        """Check everything that can be checked without a provider.

        Args:
            tools: What agents may call. An agent's own list of tools must name registered ones.
            aliases: Further names of models, as `provider:model`; they win over the built-in ones.
            timeout: How long a run may take.

        Raises:
            AgentMisconfigured: An alias or an agent names an unknown provider or tool, or a name is taken.
        """
        self.tools = tools
        self.means = Means(tools, conversations, blobs, budgets or Budgets())
        self.providers = providers or Providers()
        self.timeout = timeout
        self._models: dict[Route, Model] = {}
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()
        names = {**ALIASES, **(aliases or {})}
        self._operations = {
            OFFLINE: AgentOperation(_OFFLINE_AGENT, Route(RULES, RULES), self),
            **{name: AgentOperation(_plain(name, names), route(name, names), self) for name in names},
        }
        for agent in agents:
            self._register(agent, names)

    def _register(self, agent: RegisteredAgent, aliases: Mapping[str, str]) -> None:
        if agent.name in self._operations:
            raise AgentMisconfigured(f"the agent {agent.name!r} has the name of another agent or model")
        known = self.tools.names
        if known is not None and (unknown := sorted((agent.tools or frozenset[str]()) - set(known))):
            raise AgentMisconfigured(f"the agent {agent.name!r} names unknown tools: {', '.join(unknown)}")
        self._operations[agent.name] = AgentOperation(agent, route(agent.model, aliases), self)

    @property
    def type(self) -> OperationType:
        """Always `agent`."""
        return "agent"

    @property
    def names(self) -> Collection[str]:
        """The names of all agents."""
        return self._operations.keys()

    async def find(self, name: str, scope: OperationScope = EVERYWHERE) -> "AgentOperation | None":
        """The agent of this name, which is the same everywhere."""
        return self._operations.get(name)

    async def catalogue(self, scope: OperationScope = EVERYWHERE) -> "Sequence[AgentOperation]":
        """All agents, by name; those without a key too, with the reason why they cannot run."""
        return [self._operations[name] for name in sorted(self._operations)]

    async def model(self, wanted: Route) -> "Model":
        """The model, made at first use, off the event loop."""
        async with self._opening:
            if wanted not in self._models:
                made = await asyncio.to_thread(_build_model, wanted, self.providers)
                self._models[wanted] = await self._opened.enter_async_context(made)
        return self._models[wanted]

    async def close(self) -> None:
        """End the connections to providers."""
        self._models.clear()
        await self._opened.aclose()


class AgentOperation:
    """One agent as an operation. Every role may run it: what it may do is decided call by call, by its caller's."""

    def __init__(self, agent: RegisteredAgent, to: Route, registry: AgentRegistry) -> None:
        self.agent = agent
        self.route = to
        self._registry = registry

    @property
    def type(self) -> OperationType:
        """Always `agent`."""
        return "agent"

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.agent.name

    @property
    def effects(self) -> frozenset[Effect]:
        """Only `read`: a viewer's agent is cut to what a viewer may do."""
        return _EFFECTS

    @property
    def timeout(self) -> timedelta:
        """How long a run may take."""
        return self._registry.timeout

    @property
    def limit(self) -> int | None:
        """None: agents have budgets of their own."""
        return None

    @property
    def parks(self) -> bool:
        """False: a run lives in one process."""
        return False

    @property
    def snapshot_version(self) -> int:
        """Of no use as long as runs do not park."""
        return 1

    def parse(self, call: Any) -> AgentCall:
        """The call itself, which the door has validated.

        Raises:
            ModelUnavailable: A key or a package is missing; it is named.
        """
        self.route.must_be_open(self._registry.providers)
        return call

    async def run(self, context: MDSContext, parameters: Any) -> Finished:
        """Let the agent answer, with the casefile's tools.

        Raises:
            NestedFailed: `budget_spent`, or `model_failed`.
            RightsLost: The caller's permission ended while it ran.
        """
        run_agent = await asyncio.to_thread(_load_run_agent)
        model = await self._registry.model(self.route)
        return await run_agent(self.agent, self.route, model, parameters, context, self._registry.means)

    def entry(self) -> CatalogEntry:
        """The agent in the catalogue."""
        because = None
        try:
            self.route.must_be_open(self._registry.providers)
        except ModelUnavailable as error:
            because = error.detail
        return CatalogEntry(
            operation_type="agent",
            name=self.name,
            description=self.agent.description,
            effects=sorted(self.effects),
            role=role_for_effects(self.effects),
            timeout_s=self.timeout.total_seconds(),
            parameters=_PARAMETERS,
            rule_based=self.route.is_rule_based,
            available=because is None,
            unavailable_because=because,
        )


_OFFLINE_AGENT = RegisteredAgent(
    name=OFFLINE,
    description=(
        "Rule-based, no model: turns the prompt into a search of the casefile's mail and answers with what it found, "
        "word for word, with document ids."
    ),
    instructions="",
    model=RULES,
    tools=frozenset({"mail_search", "mail_get"}),
)

_SCHEMA = AgentCall.model_json_schema()
_PARAMETERS = {
    **_SCHEMA,
    "properties": {k: v for k, v in _SCHEMA["properties"].items() if k in ("prompt", "message_history")},
    "required": ["prompt"],
}


def _plain(name: str, aliases: Mapping[str, str]) -> RegisteredAgent:
    description = f"The model {aliases[name]} with every tool that the caller may use."
    return RegisteredAgent(name, description, instructions="", model=name)


# PydanticAI and the providers' libraries are imported by these two, each of which is called in a thread.


def _build_model(wanted: Route, providers: Providers) -> "Model":
    from casekeeper.agents.models import build_model

    return build_model(wanted, providers)


def _load_run_agent():
    from casekeeper.agents.runs import run_agent

    return run_agent
