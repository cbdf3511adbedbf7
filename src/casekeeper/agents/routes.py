"""Which model a name stands for, and whether it can be reached with the present settings."""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib.util import find_spec
from typing import Literal, cast, get_args

from casekeeper.errors import ModelUnavailable
from casekeeper.values import value

Provider = Literal["google", "openai", "openai-chat", "anthropic", "rules"]
"""How a model is spoken to: `openai` is the Responses API, `openai-chat` the one that other servers imitate, and
`rules` is no model at all."""

RULES = "rules"

ALIASES: Mapping[str, str] = {
    "claude-haiku-4-5": "anthropic:claude-haiku-4-5",
    "claude-sonnet-4-6": "anthropic:claude-sonnet-4-6",
    "gemini-2.0-flash-exp": "google:gemini-2.0-flash-exp",
    "gemini-3.1-flash-lite": "google:gemini-3.1-flash-lite",
    "gemini-3.8-flash": "google:gemini-3.8-flash",
    "gpt-4o-mini": "openai-chat:gpt-4o-mini",
    "gpt-5.6-luna": "openai:gpt-5.6-luna",
    "gpt-5.6-terra": "openai:gpt-5.6-terra",
}
"""Names under which models are known without any setting."""


class AgentMisconfigured(Exception):
    """An alias or a registered agent cannot be right: start-up stops, before anyone relies on it."""


@value
class Providers:
    """Keys and addresses of the model providers; an address that is None is the provider's own.

    A server that speaks OpenAI's language may need no key: with `openai_base_url` set, `openai_api_key` is optional.
    `google_api_version` is the version in the path of Gemini's address; None is the library's choice.
    """

    google_api_key: str | None = field(default=None, repr=False)
    google_base_url: str | None = None
    google_api_version: str | None = None
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    anthropic_api_key: str | None = field(default=None, repr=False)
    anthropic_base_url: str | None = None

    def missing_key(self, provider: Provider) -> str | None:
        """The setting without which this provider cannot be reached."""
        match provider:
            case "google":
                return None if self.google_api_key else "CASEKEEPER_GOOGLE_API_KEY"
            case "openai" | "openai-chat":
                return None if self.openai_api_key or self.openai_base_url else "CASEKEEPER_OPENAI_API_KEY"
            case "anthropic":
                return None if self.anthropic_api_key else "CASEKEEPER_ANTHROPIC_API_KEY"
            case "rules":
                return None


@value
class Route:
    """A model and how it is spoken to, written `provider:model`."""

    provider: Provider
    model: str

    @property
    def is_rule_based(self) -> bool:
        """Whether written rules answer instead of a model."""
        return self.provider == RULES

    def must_be_open(self, providers: Providers) -> None:
        """Refuse what cannot work before it starts.

        Raises:
            ModelUnavailable: A key or an installed package is missing; the setting or the package is named.
        """
        if setting := providers.missing_key(self.provider):
            raise ModelUnavailable(f"The model {self.model} needs a key: set {setting}.")
        if extra := _missing_extra(self.provider):
            raise ModelUnavailable(
                f"The model {self.model} needs a package: pip install casekeeper[{extra}]."
            )


def route(name: str, aliases: Mapping[str, str]) -> Route:
    """What an alias, or `provider:model` written out, stands for.

    Raises:
        AgentMisconfigured: It is neither.
    """
    written = aliases.get(name, name)
    provider, colon, model = written.partition(":")
    if not colon or not model:
        raise AgentMisconfigured(f"{name!r} is neither an alias nor written provider:model")
    known = [p for p in get_args(Provider) if p != RULES]
    if provider not in known:
        raise AgentMisconfigured(f"{name!r} names the provider {provider!r}; there are {', '.join(known)}")
    return Route(cast(Provider, provider), model)


@cache
def _missing_extra(provider: Provider) -> str | None:
    match provider:
        case "google":
            return None if _is_installed("google.genai") else "google"
        case "openai" | "openai-chat":
            return None if _is_installed("openai") else "openai"
        case "anthropic":
            return None if _is_installed("anthropic") else "anthropic"
        case "rules":
            return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
