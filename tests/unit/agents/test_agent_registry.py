"""Which agents there are, and what keeps them from running."""

import subprocess
import sys

import pytest
from inline_snapshot import snapshot

from casekeeper.agents.agent import RegisteredAgent
from casekeeper.agents.registry import AgentRegistry
from casekeeper.agents.routes import ALIASES, AgentMisconfigured, Providers, Route, route
from casekeeper.errors import ModelUnavailable
from casekeeper.operations.operation import AgentCall
from casekeeper.operations.registry import Registry
from tests.unit.agents.desk import Desk

CALL = AgentCall(operation_type="agent", agent_name="x", prompt="Hello")


def registry(desk: Desk, **options: object) -> AgentRegistry:
    return AgentRegistry(desk.tools, desk, desk.blobs, **options)  # pyright: ignore[reportArgumentType]


async def test_without_any_key_the_catalogue_says_what_is_missing(desk: Desk) -> None:
    entries = {agent.name: agent.entry() for agent in await desk.registry.catalogue()}
    assert list(entries) == sorted(entries)
    shown = entries["gpt-4o-mini"].model_dump(mode="json", exclude={"parameters"})
    assert shown == snapshot(
        {
            "operation_type": "agent",
            "name": "gpt-4o-mini",
            "description": "The model openai-chat:gpt-4o-mini with every tool that the caller may use.",
            "effects": ["read"],
            "role": "viewer",
            "timeout_s": 300.0,
            "rule_based": False,
            "available": False,
            "unavailable_because": "The model gpt-4o-mini needs a key: set CASEKEEPER_OPENAI_API_KEY.",
        }
    )
    assert [name for name, entry in entries.items() if entry.available] == ["offline-researcher"]
    assert [name for name, entry in entries.items() if entry.rule_based] == ["offline-researcher"]


async def test_the_catalogue_shows_what_a_call_takes(desk: Desk) -> None:
    entry = (await Registry([desk.registry]).catalogue())[0]
    assert set(entry.parameters["properties"]) == {"prompt", "message_history"}
    assert entry.parameters["required"] == ["prompt"]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("gemini-2.0-flash-exp", "CASEKEEPER_GOOGLE_API_KEY"),
        ("gpt-4o-mini", "CASEKEEPER_OPENAI_API_KEY"),
        ("claude-haiku-4-5", "CASEKEEPER_ANTHROPIC_API_KEY"),
    ],
)
async def test_without_a_key_nothing_starts_and_the_setting_is_named(
    desk: Desk, name: str, setting: str
) -> None:
    operation = await desk.registry.find(name)
    assert operation is not None
    with pytest.raises(ModelUnavailable, match=setting):
        operation.parse(CALL)


async def test_a_missing_package_is_named() -> None:
    script = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("openai", "google"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
from casekeeper.agents.routes import ALIASES, Providers, route
for name in ("gemini-2.0-flash-exp", "gpt-4o-mini"):
    try:
        route(name, ALIASES).must_be_open(Providers(google_api_key="k", openai_api_key="k"))
    except Exception as error:
        print(error)
"""
    assert run_alone(script) == snapshot(
        """\
The model gemini-2.0-flash-exp needs a package: pip install casekeeper[google].
The model gpt-4o-mini needs a package: pip install casekeeper[openai].
"""
    )


@pytest.mark.parametrize(
    "providers", [Providers(openai_api_key="k"), Providers(openai_base_url="http://127.0.0.1:1/v1")]
)
async def test_a_key_or_a_server_of_ones_own_opens_the_way(desk: Desk, providers: Providers) -> None:
    operation = await registry(desk, providers=providers).find("gpt-4o-mini")
    assert operation is not None
    assert operation.parse(CALL) is CALL


async def test_keys_are_not_shown() -> None:
    providers = Providers(google_api_key="secret", openai_api_key="secret", anthropic_api_key="secret")
    assert "secret" not in repr(providers)


async def test_settings_add_names_of_models(desk: Desk) -> None:
    operation = await registry(desk, aliases={"house": "openai-chat:llama3"}).find("house")
    assert operation is not None
    assert operation.route == Route("openai-chat", "llama3")


async def test_a_registered_agent_may_name_an_alias_or_a_model(desk: Desk) -> None:
    agents = [
        RegisteredAgent("clerk", "Files.", "Be exact.", "gpt-4o-mini"),
        RegisteredAgent("judge", "Decides.", "Be fair.", "google:gemini-3.8-flash", frozenset({"mail_get"})),
    ]
    made = registry(desk, agents=agents)
    routes = [operation.route for name in ("clerk", "judge") if (operation := await made.find(name))]
    assert routes == [Route("openai-chat", "gpt-4o-mini"), Route("google", "gemini-3.8-flash")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aliases": {"x": "cohere:command"}}, "names the provider 'cohere'; there are google, openai"),
        ({"aliases": {"x": "just-a-name"}}, "neither an alias nor written provider:model"),
        ({"aliases": {"x": "google:"}}, "neither an alias nor written provider:model"),
        ({"aliases": {"x": "rules:rules"}}, "names the provider 'rules'"),
        ({"agents": [RegisteredAgent("x", "", "", "dream")]}, "'dream' is neither an alias"),
        ({"agents": [RegisteredAgent("gpt-4o-mini", "", "", "gpt-4o-mini")]}, "has the name of another"),
        (
            {"agents": [RegisteredAgent("x", "", "", "gpt-4o-mini", frozenset({"fly"}))]},
            "unknown tools: fly",
        ),
    ],
)
async def test_what_cannot_be_right_stops_the_start(
    desk: Desk, options: dict[str, object], said: str
) -> None:
    with pytest.raises(AgentMisconfigured, match=said):
        registry(desk, **options)


def test_every_built_in_alias_names_a_known_provider() -> None:
    assert {route(name, ALIASES).provider for name in ALIASES} == {
        "anthropic",
        "google",
        "openai",
        "openai-chat",
    }


async def test_there_is_no_agent_of_another_name(desk: Desk) -> None:
    assert await desk.registry.find("google:gemini-2.0-flash-exp") is None


def test_the_registry_does_not_load_the_agent_library() -> None:
    assert (
        run_alone("import casekeeper.agents.registry, sys; print('pydantic_ai' in sys.modules)") == "False\n"
    )


def run_alone(script: str) -> str:
    """What a script prints in a process of its own, where nothing is imported yet."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout
