"""An external issuer, as the operators configure it: which of its tokens are accepted, and for which accounts."""

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator

from casekeeper.strict import Strict

Family = Literal["RSA", "RSA-PSS", "EC", "Ed25519"]


def may_be_asked(url: str, *, loopback: bool) -> bool:
    """Whether an address may be fetched: https anywhere, http on loopback only, and only where that is allowed."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and loopback and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Issuer(Strict):
    """One OpenID Connect issuer. `issuer` is compared letter by letter with what tokens and the issuer itself say."""

    model_config = ConfigDict(frozen=True)

    issuer: Annotated[str, StringConstraints(min_length=8, max_length=500)]
    audience: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    algorithm: Family = "RSA"
    link: Literal["subject", "email"] = "subject"
    email_domains: list[Annotated[str, StringConstraints(min_length=1, to_lower=True)]] = Field(default=[])
    creates_accounts: bool = False
    leeway_s: Annotated[int, Field(ge=0, le=120)] = 5
    jwks_uri: str | None = None
    browser: bool = False
    client_secret: SecretStr | None = None
    scope: Annotated[str, StringConstraints(pattern=r"^openid( [!#-\[\]-~]+)*$", max_length=500)] = (
        "openid email profile"
    )

    @property
    def is_loopback(self) -> bool:
        """Whether it runs on this machine, so that its addresses may be http."""
        return _is_loopback(urlsplit(self.issuer).hostname or "")

    @field_validator("issuer", "jwks_uri")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        if url is not None and not may_be_asked(url, loopback=True):
            raise ValueError(
                "must be an https address without user, password and fragment (http on loopback only)"
            )
        return url

    @model_validator(mode="after")
    def _domains_are_for_mail(self) -> "Issuer":
        if self.email_domains and self.link != "email":
            raise ValueError("email_domains says nothing unless link is email")
        return self

    @model_validator(mode="after")
    def _secrets_are_for_browsers(self) -> "Issuer":
        if self.client_secret is not None and not self.browser:
            raise ValueError("client_secret says nothing unless browser is true")
        return self
