"""Opens the agents of a server, by its settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import SecretStr

from casekeeper.agents.agent import Budgets
from casekeeper.agents.registry import AgentRegistry
from casekeeper.agents.routes import AgentMisconfigured, Providers
from casekeeper.errors import SettingsInvalid
from casekeeper.operations.sources import SourceParts


@asynccontextmanager
async def open_agents(parts: SourceParts) -> AsyncGenerator[AgentRegistry]:
    """The agents, with connections to providers that are closed in the end.

    Raises:
        SettingsInvalid: An alias names an unknown provider.
    """
    try:
        agents = _agents(parts)
    except AgentMisconfigured as error:
        raise SettingsInvalid(f"CASEKEEPER_AGENT_ALIASES: {error}.") from error
    try:
        yield agents
    finally:
        await agents.close()


def _agents(parts: SourceParts) -> AgentRegistry:
    settings = parts.settings
    return AgentRegistry(
        parts.tools,
        parts.storage.events,
        parts.storage.blobs,
        providers=Providers(
            google_api_key=_secret_of(settings.google_api_key),
            google_base_url=settings.google_base_url,
            google_api_version=settings.google_api_version,
            openai_api_key=_secret_of(settings.openai_api_key),
            openai_base_url=settings.openai_base_url,
            anthropic_api_key=_secret_of(settings.anthropic_api_key),
            anthropic_base_url=settings.anthropic_base_url,
        ),
        aliases=settings.agent_aliases,
        budgets=Budgets(
            requests=settings.agent_requests,
            tool_calls=settings.agent_tool_calls,
            total_tokens=settings.agent_tokens,
        ),
        timeout=timedelta(seconds=settings.agent_timeout_s),
    )


def _secret_of(setting: SecretStr | None) -> str | None:
    return setting.get_secret_value() if setting else None
