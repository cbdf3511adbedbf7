"""A casefile's desk at which agents run. What the corridor does to a tool call is a short function here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic_ai.models import Model
from pydantic_core import from_json, to_json

from casekeeper.acl import Effect, Role, role_for_effects
from casekeeper.agents.agent import Budgets, RegisteredAgent
from casekeeper.agents.registry import AgentRegistry
from casekeeper.agents.routes import Providers
from casekeeper.agents.runs import run_agent
from casekeeper.casefiles.access import Access
from casekeeper.errors import ArgumentsInvalid
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_event_id
from casekeeper.operations.context import MDSContext, NestedFailed, RightsLost
from casekeeper.operations.operation import AgentCall, Finished, Message, ToolCall
from casekeeper.operations.registry import ToolRegistry
from casekeeper.operations.tools import Tool, tool
from casekeeper.sessions.session import PutConversation
from casekeeper.storage.blobs.directory import DirectoryBlobs

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CASEFILE = "cf_260301_abcdef"
SESSION = "ts_260301_anna1234_abcdef"

MAILS = [
    {
        "document_id": "doc_1",
        "title": "Tax return 2024",
        "sender": "anna@example.com",
        "sent_at": "2024-05-02T08:00:00Z",
        "text": "Hello. The tax return is attached. Regards.",
    },
    {
        "document_id": "doc_2",
        "title": "Lunch",
        "sender": "ben@example.com",
        "sent_at": "2023-01-02T08:00:00Z",
        "text": "Shall we have lunch on Monday?",
    },
]


@tool(effects={Effect.READ})
async def mail_search(call: MDSContext, query: str, limit: int = 20) -> dict[str, Any]:
    """Search the mail."""
    words = [word.lower() for word in query.split() if ":" not in word]
    years = {word[6:10] for word in query.split() if word.startswith("after:")}
    found = [
        mail
        for mail in MAILS
        if all(word in (mail["title"] + mail["text"]).lower() for word in words)
        and all(year == mail["sent_at"][:4] for year in years)
    ]
    return {"source": "archive", "query": query, "messages": found[:limit]}


@tool(effects={Effect.READ})
async def mail_get(call: MDSContext, document_id: str) -> dict[str, Any]:
    """Get one mail."""
    return next(mail for mail in MAILS if mail["document_id"] == document_id)


@tool(effects={Effect.WRITE})
async def note_add(call: MDSContext, text: str) -> dict[str, str]:
    """Add a note."""
    return {"document_id": "doc_9"}


@tool(effects={Effect.READ})
async def always_down(call: MDSContext) -> None:
    """Never works."""
    raise NestedFailed("operation_raised", "it is down")


@tool(effects={Effect.READ})
async def very_long(call: MDSContext) -> str:
    """Says a lot."""
    return "word " * 100_000


@tool(effects={Effect.READ})
async def rights_lost(call: MDSContext) -> None:
    """Stands for a permission that ends while the agent runs."""
    raise RightsLost


TOOLS = (mail_search, mail_get, note_add, always_down, very_long, rights_lost)


@dataclass
class Desk:
    """Runs agents in one session and keeps what they did."""

    directory: Path
    role: Role = Role.EDITOR
    budgets: Budgets = field(default_factory=Budgets)
    providers: Providers = field(default_factory=Providers)
    agents: tuple[RegisteredAgent, ...] = ()
    tools: ToolRegistry = field(default_factory=lambda: ToolRegistry(TOOLS))
    invoked: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    call_ids: list[str | None] = field(default_factory=list[str | None])
    refused: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refused_inputs: list[Any] = field(default_factory=list[Any])
    progress: list[Any] = field(default_factory=list[Any])
    snapshot: str | None = None
    is_tainted: bool = False

    def __post_init__(self) -> None:
        self.blobs = DirectoryBlobs(self.directory)
        self.registry = AgentRegistry(
            self.tools,
            self,
            self.blobs,
            providers=self.providers,
            agents=self.agents,
            budgets=self.budgets,
        )

    async def conversation(self, session_id: str) -> str | None:
        return self.snapshot

    async def ask(
        self,
        prompt: str,
        model: Model | None = None,
        *,
        agent: str = "gpt-4o-mini",
        history: list[Message] | None = None,
    ) -> Finished:
        """Run an agent, with this model in the place of its own; a finished run's conversation is kept."""
        call = AgentCall(operation_type="agent", agent_name=agent, prompt=prompt, message_history=history)
        operation = await self.registry.find(agent)
        assert operation is not None
        if model is None:
            finished = await operation.run(self.context(), operation.parse(call))
        else:
            finished = await run_agent(
                operation.agent, operation.route, model, call, self.context(), self.registry.means
            )
        (record,) = finished.records
        assert isinstance(record, PutConversation)
        self.snapshot = record.blob
        return finished

    def context(self) -> MDSContext:
        """What a run may see and do, with this desk's role."""
        caller = Principal("anna@example.com", "usr_1", is_operator=False, epoch="1", asof=1, expires_at=NOW)
        event_id = new_event_id(NOW)
        return MDSContext(
            access=Access(caller, CASEFILE, self.role, "store", 1, NOW),
            session_id=SESSION,
            event_id=event_id,
            root_event_id=event_id,
            depth=0,
            deadline=NOW + timedelta(minutes=5),
            documents=None,  # pyright: ignore[reportArgumentType] - no tool here reads documents
            invoke=self._invoke,
            note_refusal=self._note_refusal,
            may=self._may,
            taint=self._taint,
            progress=self.progress.append,
        )

    def _may(self, operation: Tool) -> bool:
        return self.role.covers(role_for_effects(operation.effects))

    def _taint(self) -> None:
        self.is_tainted = True

    async def _invoke(
        self,
        call: Any,
        *,
        call_id: str | None = None,
        key: str | None = None,
        tainted: bool = False,
        begun: Callable[[str], None] | None = None,
    ) -> Any:
        assert isinstance(call, ToolCall)
        self.invoked.append((call.tool_name, call.parameters))
        self.call_ids.append(call_id)
        if begun is not None:
            begun(f"evt_child{len(self.invoked)}")
        wanted = self.tools[call.tool_name]
        try:
            finished = await wanted.run(self.context(), wanted.parse(call))
        except ArgumentsInvalid as refusal:
            raise NestedFailed(refusal.code, refusal.detail) from refusal
        return from_json(to_json(finished.outputs))

    async def _note_refusal(
        self, *, name: str, inputs: Any, error_type: str, message: str, call_id: str
    ) -> str:
        assert name in message
        to_json(inputs)
        self.refused.append((name, error_type))
        self.refused_inputs.append(inputs)
        return f"evt_refused{len(self.refused)}"

    @property
    def streamed(self) -> str:
        """The text that went out while the agent ran."""
        return "".join(piece["delta"] for piece in self.progress if piece["type"] == "text")
