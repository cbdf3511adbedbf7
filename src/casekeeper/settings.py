"""Every setting: default, unit, description. Read once at start, then frozen.

Sources, the strongest first: what the command line says, environment variables `CASEKEEPER_*`, `casekeeper.toml` in
the working directory (or where `CASEKEEPER_CONFIG` points), the defaults here. An unknown key stops start-up.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from casekeeper.errors import SettingsInvalid
from casekeeper.identity.issuer import Issuer, may_be_asked
from casekeeper.operations.policy import PolicyRule, read_rules
from casekeeper.storage.addresses import bucket_parts, check_redis, store_parts
from casekeeper.storage.options import StoreLimits

PREFIX = "CASEKEEPER_"
CONFIG = f"{PREFIX}CONFIG"


class UnknownSetting(ValueError):
    """A key that casekeeper does not know: most likely a typing error, which must not pass in silence."""


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    data: Path = Field(
        default=Path(".casekeeper"),
        description="Directory of the embedded store, keys and, by default, blobs.",
    )
    store: str = Field(
        default="",
        description="Address of the store: sqlite:///path, postgresql://user:password@host/database or "
        "firestore://project/database; empty is SQLite in the data directory.",
    )
    blobs: str = Field(
        default="",
        description="Where large bytes are kept: a directory, database (in the store itself), s3://bucket/prefix or "
        "gs://bucket/prefix; empty is the folder blobs in the data directory.",
    )
    store_connections: int = Field(
        default=10, ge=3, le=500, description="Connections to a PostgreSQL store, per process."
    )
    store_connect_s: float = Field(
        default=5, gt=0, description="Seconds to wait for such a connection, or for one to an object store."
    )
    store_statement_s: float = Field(
        default=15,
        gt=0,
        description="Seconds that a statement may take there, or a request to an object store.",
    )
    store_lock_s: float = Field(
        default=5, gt=0, description="Seconds that a statement waits for a lock there."
    )
    firestore_channels: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Connections to a Firestore store, each for about 100 calls at once.",
    )
    search: Path | None = Field(
        default=None,
        description="File of the search index beside a Firestore store; search.db in the data directory if not set.",
    )
    redis: SecretStr | None = Field(
        default=None,
        description="Address of a Redis for several processes: redis://[user:password@]host[:port][/database], or rediss://…[?ssl_ca_certs=file].",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8377, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that `serve` starts behind its port; more than one needs PostgreSQL or Firestore.",
    )
    processes: int = Field(
        default=0,
        ge=0,
        description="Server processes on this store on all machines; 0 means the workers of one server. Without Redis "
        "each counts its part of a rate limit.",
    )
    issuer: str = Field(
        default="casekeeper", description="`iss` and `aud` of the access tokens that this server makes."
    )
    issuers: list[Issuer] = Field(
        default_factory=list[Issuer],
        description="Issuers outside whose tokens stand for accounts, as JSON or `[[issuers]]` in the file: "
        "docs/identity.md.",
    )
    public_url: str = Field(
        default="",
        description="Where browsers reach this server: https://host[:port], or http on loopback. Empty is "
        "http://127.0.0.1 with the port, for browsers on this machine.",
    )
    browser_session_hours: float = Field(
        default=12, gt=0, le=24 * 31, description="Hours after which somebody must log in again in a browser."
    )
    operator: str = Field(
        default="operator@localhost", description="User id of the operator made at first start."
    )
    everybody_creates: bool = Field(
        default=True, description="Whether any active account may create casefiles."
    )
    session_idle_hours: float = Field(
        default=12, gt=0, description="Hours after which an auto session is not re-used."
    )
    limit_user: int = Field(default=6000, ge=0, description="Operations a minute per user; 0 means no limit.")
    limit_casefile: int = Field(
        default=12000, ge=0, description="Operations a minute per casefile; 0 means no limit."
    )
    limit_tool: int = Field(
        default=0,
        ge=0,
        description="Operations a minute per tool, whoever calls it, for tools that declare no limit; 0 means no limit.",
    )
    limit_tools: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict[str, int],
        description="Operations a minute of single tools, as JSON: name to number; stronger than what a tool declares.",
    )
    upload_bytes: int = Field(default=2 * 1024**3, ge=1, description="Largest upload, in bytes.")
    document_bytes: int = Field(
        default=2 * 1024**3, ge=1, description="Largest single document that is filed, in bytes."
    )
    casefile_bytes: int = Field(
        default=0, ge=0, description="Bytes of documents that a casefile may hold; 0 means no limit."
    )
    record_reads: bool = Field(
        default=True, description="Whether reading a document's raw bytes leaves a fact on the record."
    )
    stop_delay_s: float = Field(
        default=0,
        ge=0,
        description="Seconds for which a server that is told to stop goes on as before, while /readyz says no: so long "
        "a load balancer may take to notice.",
    )
    drain_s: float = Field(
        default=10,
        ge=0,
        description="Seconds that running operations then get to end, before they are interrupted.",
    )
    google_api_key: SecretStr | None = Field(default=None, description="Key for Google's models.")
    google_base_url: str | None = Field(
        default=None, description="Address of Google's API, if not Google's own."
    )
    google_api_version: str | None = Field(default=None, description="Version in the path of Google's API.")
    openai_api_key: SecretStr | None = Field(
        default=None, description="Key for OpenAI's models, or a compatible server's."
    )
    openai_base_url: str | None = Field(default=None, description="Address of an OpenAI-compatible API.")
    anthropic_api_key: SecretStr | None = Field(default=None, description="Key for Anthropic's models.")
    anthropic_base_url: str | None = Field(
        default=None, description="Address of Anthropic's API, if not its own."
    )
    agent_aliases: dict[str, str] = Field(
        default_factory=dict[str, str], description="Further agent names, as JSON: name to provider:model."
    )
    policies: Annotated[list[SerializeAsAny[PolicyRule]], BeforeValidator(read_rules)] = Field(
        default_factory=list[PolicyRule],
        description="Rules that deny operations or ask for an approval, as JSON or `[[policies]]` in the file: "
        "docs/policies.md.",
    )
    agent_egress: Literal["approval", "allow"] = Field(
        default="approval",
        description="What may be sent out or destroyed by an agent that has read something, and by what follows its "
        "answers: `approval` refuses it until it is approved, `allow` leaves it to the caller's role.",
    )
    agent_requests: int = Field(default=30, ge=1, description="Requests to the model per agent run.")
    agent_tool_calls: int = Field(default=60, ge=1, description="Tool calls per agent run.")
    agent_tokens: int = Field(default=500_000, ge=1, description="Tokens per agent run.")
    agent_timeout_s: float = Field(default=300, gt=0, description="Seconds per agent run.")

    @property
    def origin(self) -> str:
        """Where browsers reach this server: scheme, host and port."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def is_shared(self) -> bool:
        """Whether the store is one in which several processes work at once."""
        return bool(self.store) and not self.store.startswith("sqlite:")

    @property
    def store_limits(self) -> StoreLimits:
        """What a store gets."""
        return StoreLimits(
            self.store_connections,
            timedelta(seconds=self.store_connect_s),
            timedelta(seconds=self.store_statement_s),
            timedelta(seconds=self.store_lock_s),
            self.firestore_channels,
            self.search,
            self.blobs,
        )

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        origin = url.removesuffix("/")
        if origin and (not may_be_asked(origin, loopback=True) or origin.count("/") != 2 or "?" in origin):
            raise ValueError("must be https://host[:port] (http on loopback only), without a path")
        return origin.lower()

    @model_validator(mode="before")
    @classmethod
    def _no_unknown(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = {f"{PREFIX}{name.upper()}" for name in cls.model_fields} | {CONFIG}
        unknown = sorted(k for k in os.environ if k.startswith(PREFIX) and k.upper() not in known)  # noqa: TID251
        unknown += sorted(set(values) - set(cls.model_fields))
        if unknown:
            raise UnknownSetting(f"unknown setting: {', '.join(unknown)}")
        return values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of the sources, the strongest first."""
        named = os.environ.get(CONFIG)  # noqa: TID251
        if named is not None and not Path(named).is_file():
            raise SettingsInvalid(f"{CONFIG}: there is no file {named}.")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, named or "casekeeper.toml")


def read_settings(**given: Any) -> Settings:
    """The settings of this process, with what is given on top; None counts as not given.

    Raises:
        SettingsInvalid: A file or a value cannot be used, a key is unknown, or an address names nothing that could be.
        PackageUnusable: A library that they need is not installed.
    """
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        found = "; ".join(
            ": ".join(filter(None, (".".join(map(str, e["loc"])), " ".join(e["msg"].split()))))
            for e in error.errors()
        )
        raise SettingsInvalid(f"The settings do not fit: {found}.") from error
    except (ValueError, OSError) as error:
        raise SettingsInvalid(f"The settings cannot be read: {error}.") from error
    store_parts(settings.store)
    bucket_parts(settings.blobs)
    if settings.redis is not None:
        check_redis(settings.redis.get_secret_value())
    return settings


def masked(settings: Settings) -> dict[str, Any]:
    """All settings in JSON, secrets as stars."""
    return settings.model_dump(mode="json")
