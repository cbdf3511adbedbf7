"""Makes PydanticAI's models out of routes and settings. Slow: providers' libraries are imported and TLS is set up."""

from typing import Any, assert_never

from pydantic_ai.models import Model

from casekeeper.agents.offline import rules
from casekeeper.agents.routes import Providers, Route

# Written out, since the libraries would otherwise look for addresses in environment variables of their own.
_GOOGLE = "https://generativelanguage.googleapis.com"
_OPENAI = "https://api.openai.com/v1"
_ANTHROPIC = "https://api.anthropic.com"

# What a server without keys gets; OpenAI's library insists on sending one.
_NO_KEY = "none"


def build_model(to: Route, providers: Providers) -> Model:
    """A model that speaks to its provider with the given keys and addresses, whatever the environment says."""
    match to.provider:
        case "google":
            return _google(to.model, providers)
        case "openai" | "openai-chat":
            return _openai(to, providers)
        case "anthropic":
            return _anthropic(to.model, providers)
        case "rules":
            return rules()
        case _:
            assert_never(to.provider)


def _google(model: str, providers: Providers) -> Model:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    class Versioned(GoogleProvider):
        # The version stands in the path of every request; the provider's constructor does not take it.
        def _build_http_options(self, **options: Any) -> Any:
            built = super()._build_http_options(**options)
            built.api_version = providers.google_api_version or built.api_version
            return built

    key, address = providers.google_api_key, providers.google_base_url or _GOOGLE
    return GoogleModel(model, provider=Versioned(api_key=key, base_url=address))


def _openai(to: Route, providers: Providers) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    address = providers.openai_base_url or _OPENAI
    provider = OpenAIProvider(base_url=address, api_key=providers.openai_api_key or _NO_KEY)
    if to.provider == "openai-chat":
        return OpenAIChatModel(to.model, provider=provider)
    return OpenAIResponsesModel(to.model, provider=provider)


def _anthropic(model: str, providers: Providers) -> Model:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    address = providers.anthropic_base_url or _ANTHROPIC
    return AnthropicModel(
        model, provider=AnthropicProvider(api_key=providers.anthropic_api_key, base_url=address)
    )
